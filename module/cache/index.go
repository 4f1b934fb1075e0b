package cache

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/wasmshim/containerd-shim-wasm/module/filelock"
	"github.com/wasmshim/containerd-shim-wasm/worker/control"
)

// index describes an entry: its module, and the file that holds its code. Any write to the code, and any
// other file put in its place, has another identity. The modification time of the index is the time of the
// entry's last use.
// See RATIONALE.md, "Why does the cache trust a file's identity and not its hash?"
type index struct {
	Code   identity
	Module control.Module
	// Blob is the path of the code, empty if it is beside the index.
	Blob string `json:",omitempty"`
	// Images are the images that were asked to keep the entry.
	Images []Image `json:",omitempty"`
}

// Image records an image that was asked to keep an entry, and the content that keeps it.
type Image struct {
	// Key distinguishes containers that may be of different images; see Entry.Known.
	Key string
	// Address is containerd's address, Namespace the image's namespace, Name the image's name, and Content
	// the digest of the image's content that refers to the entry's blob. A container without an image has
	// none of these.
	Address   string `json:",omitempty"`
	Namespace string `json:",omitempty"`
	Name      string `json:",omitempty"`
	Content   string `json:",omitempty"`
}

type identity struct {
	Inode        uint64
	Size         int64
	Mtime, Ctime int64 // ns
}

func identify(f *os.File) (identity, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return identity{}, &os.PathError{Op: "stat", Path: f.Name(), Err: err}
	}
	return identityOf(st), nil
}

func identityOf(st unix.Stat_t) identity {
	return identity{Inode: st.Ino, Size: st.Size, Mtime: st.Mtim.Nano(), Ctime: st.Ctim.Nano()}
}

// lookup opens an intact entry and records its use. The caller compiles after any error.
func (c *Cache) lookup(digest string) (Entry, error) {
	ix, used, err := c.readUsed(digest)
	if err != nil {
		return Entry{}, err
	}
	code, err := c.openCode(digest, ix)
	if err != nil {
		return Entry{}, err
	}
	if time.Since(used) > coarse {
		// If this fails because the cache cannot be written, entries cannot be removed either.
		_ = unix.UtimesNanoAt(unix.AT_FDCWD, c.path(digest, indexSuffix), justUsed, unix.AT_SYMLINK_NOFOLLOW)
	}
	return Entry{Code: code, Module: ix.Module, Digest: digest, images: ix.Images}, nil
}

// coarse is the resolution of the time of an entry's last use: writing it takes longer than the rest of a
// lookup's system calls.
const coarse = time.Minute

// justUsed sets the modification time and leaves the access time unchanged (utimensat(2)).
var justUsed = []unix.Timespec{{Nsec: unix.UTIME_OMIT}, {Nsec: unix.UTIME_NOW}}

// Known reports whether the images that containers with this key may be of have
// been asked to keep the entry.
func (e Entry) Known(key string) bool { return known(e.images, key) }

func known(images []Image, key string) bool {
	for _, image := range images {
		if image.Key == key {
			return true
		}
	}
	return false
}

func (c *Cache) readIndex(digest string) (index, error) {
	ix, _, err := c.readUsed(digest)
	return ix, err
}

// readUsed returns the index of an entry and when it was last used.
func (c *Cache) readUsed(digest string) (index, time.Time, error) {
	var ix index
	data, used, err := readIndexFile(c.path(digest, indexSuffix))
	if err != nil {
		return ix, used, fmt.Errorf("read cache index: %w", err)
	}
	if err := json.Unmarshal(data, &ix); err != nil {
		return ix, used, fmt.Errorf("decode cache index of %s: %w", digest, err)
	}
	return ix, used, nil
}

// readIndexFile is os.ReadFile with the time of the last change, in half the system calls: every start of a
// container makes them.
func readIndexFile(path string) ([]byte, time.Time, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, time.Time{}, &os.PathError{Op: "open", Path: path, Err: err}
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, time.Time{}, &os.PathError{Op: "stat", Path: path, Err: err}
	}
	data := make([]byte, min(st.Size, maxIndex))
	n, err := unix.Read(fd, data)
	if err != nil {
		return nil, time.Time{}, &os.PathError{Op: "read", Path: path, Err: err}
	}
	return data[:n], time.Unix(st.Mtim.Unix()), nil
}

// maxIndex bounds the bytes that every start and every clean-up reads of an entry. It is several times the
// size of the functions that are kept (control.Module) and the images.
const maxIndex = 256 << 10

// codePath returns the path of an entry's code.
func (c *Cache) codePath(digest string, ix index) string {
	if ix.Blob != "" {
		return ix.Blob
	}
	return c.path(digest, codeSuffix)
}

var errDamaged = errors.New("it is not the file that was written")

// openCode opens an entry's code and shares its lock. It takes the lock before it checks the identity: a
// removed file has another ctime.
func (c *Cache) openCode(digest string, ix index) (*os.File, error) {
	code, err := filelock.OpenShared(c.codePath(digest, ix))
	if err != nil {
		return nil, fmt.Errorf("open compiled module: %w", err)
	}
	now, err := identify(code)
	if err == nil && now != ix.Code {
		err = fmt.Errorf("compiled module %s: %w", code.Name(), errDamaged)
	}
	if err != nil {
		code.Close()
		return nil, err
	}
	return code, nil
}

func (c *Cache) writeIndex(digest string, ix index) error {
	data, err := json.Marshal(ix)
	if err != nil {
		return fmt.Errorf("encode cache index: %w", err)
	}
	if len(data) > maxIndex {
		return fmt.Errorf("the cache index of %s would have %d bytes, %d are the limit", digest, len(data), maxIndex)
	}
	part := c.path(digest, indexSuffix+partSuffix)
	defer os.Remove(part)
	f, err := os.OpenFile(part, os.O_WRONLY|os.O_CREATE|os.O_TRUNC|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return fmt.Errorf("create cache index: %w", err)
	}
	defer f.Close()
	if _, err := f.Write(data); err != nil {
		return fmt.Errorf("write cache index: %w", err)
	}
	if err := f.Sync(); err != nil {
		return fmt.Errorf("flush cache index: %w", err)
	}
	if err := os.Rename(part, c.path(digest, indexSuffix)); err != nil {
		return fmt.Errorf("publish cache index: %w", err)
	}
	return nil
}

// Package cache keeps compiled modules on the node, one file per module digest
// and engine, for workers to map. Loading compiled code is as trusted as loading
// a shared library, so the folder belongs to root alone, an entry appears whole
// or not at all, and an entry that is not exactly the file that was written is
// never handed out: it is compiled anew.
//
// The package never compiles and never looks into a module.
package cache

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/wasmshim/containerd-shim-wasm/runtime/control"
)

// Cache is a folder of compiled modules for one engine.
type Cache struct {
	dir string
}

// Open returns the cache in dir for the engine with the given key (of letters
// and digits), creating the folder for root alone. It refuses a folder that
// others could write.
func Open(dir, engine string) (*Cache, error) {
	path := filepath.Join(dir, engine)
	if err := os.MkdirAll(path, 0o700); err != nil {
		return nil, fmt.Errorf("create compile cache: %w", err)
	}
	for _, d := range []string{dir, path} {
		if err := checkOwner(d); err != nil {
			return nil, err
		}
	}
	return &Cache{dir: path}, nil
}

func checkOwner(dir string) error {
	var st unix.Stat_t
	if err := unix.Lstat(dir, &st); err != nil {
		return &os.PathError{Op: "stat compile cache", Path: dir, Err: err}
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR || st.Uid != uint32(os.Geteuid()) || st.Mode&0o022 != 0 {
		return fmt.Errorf("compile cache %s must be a folder that only its owner, root, can write: chown root it and chmod go-w it", dir)
	}
	return nil
}

// Digest returns the sha256 of what r holds, in hex: the name of a module.
func Digest(r io.Reader) (string, error) {
	h := sha256.New()
	if _, err := io.Copy(h, r); err != nil {
		return "", fmt.Errorf("hash module: %w", err)
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// Compiler writes the compiled module to out and describes it.
type Compiler func(ctx context.Context, out *os.File) (*control.Module, error)

// Entry is compiled code, open for reading.
type Entry struct {
	Code   *os.File
	Module control.Module
}

// index is stored beside the code: what the module is, and which file it
// describes. Any write to the code, and any other file put in its place, has
// another identity.
type index struct {
	Code   identity
	Module control.Module
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
	return identity{Inode: st.Ino, Size: st.Size, Mtime: st.Mtim.Nano(), Ctime: st.Ctim.Nano()}, nil
}

// Load returns the entry for digest, compiling it if there is none. However
// many processes ask at once, one compiles and the others wait for it.
func (c *Cache) Load(ctx context.Context, digest string, compile Compiler) (Entry, error) {
	if entry, err := c.lookup(digest); err == nil {
		return entry, nil
	}
	unlock, err := c.lock(ctx, digest)
	if err != nil {
		return Entry{}, err
	}
	defer unlock()
	if entry, err := c.lookup(digest); err == nil {
		return entry, nil
	}
	if err := c.build(ctx, digest, compile); err != nil {
		return Entry{}, err
	}
	return c.lookup(digest)
}

// lookup opens an intact entry. Any error means: compile.
func (c *Cache) lookup(digest string) (Entry, error) {
	data, err := os.ReadFile(c.path(digest, indexSuffix))
	if err != nil {
		return Entry{}, fmt.Errorf("read cache index: %w", err)
	}
	var ix index
	if err := json.Unmarshal(data, &ix); err != nil {
		return Entry{}, fmt.Errorf("decode cache index of %s: %w", digest, err)
	}
	code, err := os.OpenFile(c.path(digest, codeSuffix), os.O_RDONLY|syscall.O_NOFOLLOW, 0)
	if err != nil {
		return Entry{}, fmt.Errorf("open compiled module: %w", err)
	}
	now, err := identify(code)
	if err == nil && now != ix.Code {
		err = fmt.Errorf("compiled module %s is not the file that was written", digest)
	}
	if err != nil {
		code.Close()
		return Entry{}, err
	}
	return Entry{Code: code, Module: ix.Module}, nil
}

const (
	codeSuffix  = ".cwasm"
	indexSuffix = ".json"
	partSuffix  = ".part"
	lockSuffix  = ".lock"
)

func (c *Cache) path(digest, suffix string) string {
	return filepath.Join(c.dir, digest+suffix)
}

// build compiles into the part file and renames it; the index, which makes the
// entry valid, comes last. Whoever dies in between leaves files with names that
// the next holder of the lock writes over.
func (c *Cache) build(ctx context.Context, digest string, compile Compiler) error {
	part := c.path(digest, partSuffix)
	// A new file each time: an old one might still be open in a preparer that
	// outlived its daemon.
	if err := os.Remove(part); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove an unfinished entry: %w", err)
	}
	out, err := os.OpenFile(part, os.O_RDWR|os.O_CREATE|os.O_EXCL|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return fmt.Errorf("create cache entry: %w", err)
	}
	defer out.Close()
	defer os.Remove(part)
	module, err := compile(ctx, out)
	if err != nil {
		return err
	}
	return c.publish(digest, out, *module)
}

func (c *Cache) publish(digest string, out *os.File, module control.Module) error {
	// The order, and the flushes, keep a crash of the machine from leaving an
	// index that vouches for code that never reached the disk.
	if err := out.Chmod(0o444); err != nil {
		return fmt.Errorf("protect cache entry: %w", err)
	}
	if err := out.Sync(); err != nil {
		return fmt.Errorf("flush cache entry: %w", err)
	}
	if err := os.Rename(out.Name(), c.path(digest, codeSuffix)); err != nil {
		return fmt.Errorf("publish cache entry: %w", err)
	}
	id, err := identify(out)
	if err != nil {
		return err
	}
	data, err := json.Marshal(index{Code: id, Module: module})
	if err != nil {
		return fmt.Errorf("encode cache index: %w", err)
	}
	return c.writeIndex(digest, data)
}

func (c *Cache) writeIndex(digest string, data []byte) error {
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

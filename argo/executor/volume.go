package executor

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"
	"syscall"
)

// Where Argo's volumes are mounted in the containers of init and wait, see upstream's
// workflow/common/common.go.
const (
	varRunArgo = "/var/run/argo"
	staging    = "/argo/staging"
	mainVolume = "/mainctrfs"
)

var errLink = errors.New("a symbolic link is in the way")

// volume is a directory that other containers write to. Nothing outside of it is opened: os.Root
// resolves each component by descriptor. Errors name the whole path, as upstream's do.
type volume struct {
	root *os.Root
	// links says that links which stay inside the volume are followed.
	links bool
}

// openVolume opens a volume for a file in it, which its error names.
func openVolume(dir, file string, links bool) (*volume, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		var failed *fs.PathError
		if errors.As(err, &failed) {
			failed.Path = dir + "/" + file
		}
		return nil, err
	}
	return &volume{root: root, links: links}, nil
}

func (v *volume) close() { v.root.Close() }

// wrap names the whole path in an error.
func (v *volume) wrap(op, name string, err error) error {
	var failed *fs.PathError
	if errors.As(err, &failed) {
		err = failed.Err
	}
	return &fs.PathError{Op: op, Path: v.root.Name() + "/" + name, Err: err}
}

// relative makes a path one below a volume. It cannot lead above it.
func relative(name string) string {
	name = strings.TrimPrefix(path.Clean("/"+name), "/")
	if name == "" {
		return "."
	}
	return name
}

// check refuses a path with links in it.
func (v *volume) check(name string) error {
	if v.links {
		return nil
	}
	for i := range len(name) + 1 {
		if i != len(name) && name[i] != '/' {
			continue
		}
		info, err := v.root.Lstat(name[:i])
		if err != nil {
			return err
		}
		if info.Mode().Type() == fs.ModeSymlink {
			return errLink
		}
	}
	return nil
}

// open opens a regular file for reading. It never waits for one: a FIFO or a device is refused, and
// what replaces the file in between is opened without waiting.
func (v *volume) open(name string) (*os.File, fs.FileInfo, error) {
	err := v.check(name)
	if err != nil {
		return nil, nil, v.wrap("open", name, err)
	}
	info, err := v.root.Stat(name)
	if err == nil {
		err = mustBeRegular(info)
	}
	if err != nil {
		return nil, nil, v.wrap("open", name, err)
	}
	f, err := v.root.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK|syscall.O_NOCTTY, 0)
	if err != nil {
		return nil, nil, v.wrap("open", name, err)
	}
	info, err = f.Stat()
	if err == nil {
		err = mustBeRegular(info)
	}
	if err != nil {
		f.Close()
		return nil, nil, v.wrap("open", name, err)
	}
	return f, info, nil
}

func mustBeRegular(info fs.FileInfo) error {
	switch info.Mode().Type() {
	case 0:
		return nil
	case fs.ModeDir:
		return syscall.EISDIR
	}
	return errors.New("it is not a regular file")
}

// read returns the contents of a regular file of at most limit bytes.
func (v *volume) read(name string, limit int64) ([]byte, error) {
	f, _, err := v.open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, v.wrap("read", name, err)
	}
	if int64(len(data)) > limit {
		return nil, v.wrap("read", name, fmt.Errorf("it has more than %d bytes", limit))
	}
	return data, nil
}

// tail returns the last bytes of a regular file, limit at most, and the size of what is before them.
func (v *volume) tail(name string, limit int64) ([]byte, int64, error) {
	f, info, err := v.open(name)
	if err != nil {
		return nil, 0, err
	}
	defer f.Close()
	skipped := max(0, info.Size()-limit)
	data, err := io.ReadAll(io.NewSectionReader(f, skipped, limit))
	if err != nil {
		return nil, 0, v.wrap("read", name, err)
	}
	return data, skipped, nil
}

// exists reports whether there is a file of any kind. What cannot be looked at counts as there, as
// from upstream.
func (v *volume) exists(name string) bool {
	_, err := v.root.Lstat(name)
	return !errors.Is(err, fs.ErrNotExist)
}

// replace makes or replaces a file with what write writes, in one step: nobody sees half of it, and
// what was planted at its path is gone. The umask applies.
func (v *volume) replace(name string, perm fs.FileMode, write func(io.Writer) error) error {
	if dir := path.Dir(name); dir != "." {
		if err := v.check(dir); err != nil {
			return v.wrap("open", name, err)
		}
	}
	part := path.Join(path.Dir(name), "."+path.Base(name)+"."+rand.Text())
	f, err := v.root.OpenFile(part, os.O_WRONLY|os.O_CREATE|os.O_EXCL, perm)
	if err != nil {
		return v.wrap("open", name, err)
	}
	op := "write"
	err = write(f)
	if closed := f.Close(); err == nil {
		op, err = "close", closed
	}
	if err == nil {
		op, err = "rename", v.rename(part, name)
	}
	if err != nil {
		_ = v.root.Remove(part)
		return v.wrap(op, name, err)
	}
	return nil
}

func (v *volume) rename(from, to string) error {
	err := v.root.Rename(from, to)
	var failed *os.LinkError
	if errors.As(err, &failed) {
		return failed.Err
	}
	return err
}

func (v *volume) replaceWith(name string, perm fs.FileMode, content []byte) error {
	return v.replace(name, perm, func(w io.Writer) error {
		_, err := w.Write(content)
		return err
	})
}

// mkdirAll makes a directory and those above it.
func (v *volume) mkdirAll(name string, perm fs.FileMode) error {
	if err := v.root.MkdirAll(name, perm); err != nil {
		return v.wrap("mkdir", name, err)
	}
	return nil
}

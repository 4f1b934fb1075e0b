package argo

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// tree is a directory that paths are resolved below, in one system call each, so
// that nothing another process does in between leads out of it. openat2(2).
type tree struct {
	dir     *os.File
	resolve uint64
}

var errLink = errors.New("a symbolic link is in the way")

// openRoot opens a container's root: links lead to where they lead the container's
// own processes, ".." ends at the root.
func openRoot(dir string) (*tree, error) {
	return openTree(dir, unix.RESOLVE_IN_ROOT|unix.RESOLVE_NO_MAGICLINKS)
}

const resolveInVolume = unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS

// openVolume opens a directory in which no link is followed at all.
func openVolume(dir string) (*tree, error) {
	return openTree(dir, resolveInVolume)
}

func openTree(dir string, resolve uint64) (*tree, error) {
	f, err := os.OpenFile(dir, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, err
	}
	return &tree{dir: f, resolve: resolve}, nil
}

func (t *tree) close() { t.dir.Close() }

// open opens a file, never waits for one (a FIFO, a device) and never makes a
// terminal ours. Paths in a tree without links are relative.
func (t *tree) open(name string, flags int, perm fs.FileMode) (*os.File, error) {
	how := unix.OpenHow{Flags: uint64(flags) | unix.O_CLOEXEC, Resolve: t.resolve}
	if flags&unix.O_PATH == 0 {
		how.Flags |= unix.O_NONBLOCK | unix.O_NOCTTY
	}
	if flags&unix.O_CREAT != 0 {
		how.Mode = uint64(perm.Perm())
	}
	for {
		fd, err := unix.Openat2(int(t.dir.Fd()), name, &how)
		switch {
		case err == nil:
			return os.NewFile(uintptr(fd), name), nil
		case errors.Is(err, unix.EINTR), errors.Is(err, unix.EAGAIN):
			// The kernel could not tell whether a rename elsewhere led out of
			// the tree: ask again.
		case errors.Is(err, unix.ELOOP) && t.resolve&unix.RESOLVE_NO_SYMLINKS != 0:
			return nil, &fs.PathError{Op: "open", Path: name, Err: errLink}
		default:
			return nil, &fs.PathError{Op: "open", Path: name, Err: err}
		}
	}
}

// stat describes a file without opening it. With flag O_NOFOLLOW it describes a
// link itself.
func (t *tree) stat(name string, flag int) (fs.FileInfo, error) {
	f, err := t.open(name, unix.O_PATH|flag, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return f.Stat()
}

// sub opens a directory as a tree of its own, in which no link is followed.
func (t *tree) sub(name string) (*tree, error) {
	f, err := t.open(name, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, err
	}
	return &tree{dir: f, resolve: resolveInVolume}, nil
}

// openRegular opens a regular file for reading. Anything else is an error: reading a
// device or a FIFO could have effects, or no end, and opening a device, too.
func (t *tree) openRegular(name string, flag int) (*os.File, error) {
	found, err := t.open(name, unix.O_PATH|flag, 0)
	if err != nil {
		return nil, err
	}
	defer found.Close()
	if err := checkRegular(name, found); err != nil {
		return nil, err
	}
	// By its descriptor: another process may have put another file there in between.
	fd, err := unix.Open(fmt.Sprintf("/proc/self/fd/%d", found.Fd()), unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	switch {
	case err == nil:
		return os.NewFile(uintptr(fd), name), nil
	case errors.Is(err, unix.ENOENT):
		return t.openAgain(name, flag)
	}
	return nil, &fs.PathError{Op: "open", Path: name, Err: err}
}

// openAgain opens a file that was regular. It is for a worker, whose root has no /proc, and which has only the devices of its
// container.
func (t *tree) openAgain(name string, flag int) (*os.File, error) {
	f, err := t.open(name, unix.O_RDONLY|flag, 0)
	if err != nil {
		return nil, err
	}
	if err := checkRegular(name, f); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// checkRegular returns an error for an open file of another kind.
func checkRegular(name string, f *os.File) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	return mustBeRegular(name, info)
}

func mustBeRegular(name string, info fs.FileInfo) error {
	if info.Mode().IsRegular() {
		return nil
	}
	return fmt.Errorf("%s is not a regular file but %s", name, kind(info.Mode()))
}

// kind returns the kind of a file in words.
func kind(mode fs.FileMode) string {
	switch mode.Type() {
	case 0:
		return "a regular file"
	case fs.ModeDir:
		return "a directory"
	case fs.ModeSymlink:
		return "a symbolic link"
	case fs.ModeNamedPipe:
		return "a named pipe"
	case fs.ModeSocket:
		return "a socket"
	}
	return "a device"
}

// read returns the contents of a regular file of at most limit bytes.
func (t *tree) read(name string, limit int64) ([]byte, error) {
	f, err := t.openRegular(name, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(data)) > limit {
		return nil, fmt.Errorf("%s is larger than %d bytes", name, limit)
	}
	return data, nil
}

// exists reports whether there is a file of any kind, like test -e; what cannot be
// looked at counts as there, as upstream has it.
func (t *tree) exists(name string) bool {
	_, err := t.stat(name, 0)
	return !errors.Is(err, fs.ErrNotExist)
}

// mkdirAll makes a directory of a tree without links, and those above it.
func (t *tree) mkdirAll(name string, perm fs.FileMode) error {
	for i := range len(name) + 1 {
		if i != len(name) && name[i] != '/' {
			continue
		}
		if err := t.mkdir(name[:i], perm); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	dir, err := t.sub(name) // what exists need not be a directory
	if err != nil {
		return err
	}
	dir.close()
	return nil
}

func (t *tree) mkdir(name string, perm fs.FileMode) error {
	parent, err := t.sub(path.Dir(name))
	if err != nil {
		return err
	}
	defer parent.close()
	if err := unix.Mkdirat(int(parent.dir.Fd()), path.Base(name), uint32(perm.Perm())); err != nil {
		return &fs.PathError{Op: "mkdir", Path: name, Err: err}
	}
	dir, err := t.open(name, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	defer dir.Close()
	return dir.Chmod(perm) // whatever the umask
}

// replace makes or replaces a file of a tree without links with what write writes, atomically:
// nobody sees half of it. Anything that was planted at its path, or is left of an earlier try,
// is gone.
func (t *tree) replace(name string, perm fs.FileMode, write func(*os.File) error) error {
	parent, err := t.sub(path.Dir(name))
	if err != nil {
		return err
	}
	defer parent.close()
	const part = ".part"
	if err := unix.Unlinkat(int(parent.dir.Fd()), part, 0); err != nil && !errors.Is(err, unix.ENOENT) {
		return &fs.PathError{Op: "remove", Path: path.Join(path.Dir(name), part), Err: err}
	}
	f, err := parent.open(part, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL, perm)
	if err != nil {
		return err
	}
	err = f.Chmod(perm) // whatever the umask
	if err == nil {
		err = write(f)
	}
	if closed := f.Close(); err == nil {
		err = closed
	}
	if err == nil {
		err = unix.Renameat(int(parent.dir.Fd()), part, int(parent.dir.Fd()), path.Base(name))
		if err != nil {
			err = &fs.PathError{Op: "rename", Path: name, Err: err}
		}
	}
	if err != nil {
		_ = unix.Unlinkat(int(parent.dir.Fd()), part, 0)
	}
	return err
}

// remove removes a file of a tree without links.
func (t *tree) remove(name string) error {
	parent, err := t.sub(path.Dir(name))
	if err != nil {
		return err
	}
	defer parent.close()
	return unix.Unlinkat(int(parent.dir.Fd()), path.Base(name), 0)
}

// names lists a directory in the order of filepath.Walk.
func (t *tree) names(name string) ([]string, error) {
	f, err := t.open(name, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	names, err := f.Readdirnames(-1)
	if err != nil {
		return nil, err
	}
	slices.Sort(names)
	return names, nil
}

// readlink returns where a link of a tree without links points to.
func (t *tree) readlink(name string) (string, error) {
	f, err := t.open(name, unix.O_PATH|unix.O_NOFOLLOW, 0)
	if err != nil {
		return "", err
	}
	defer f.Close()
	target := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(int(f.Fd()), "", target)
	if err != nil {
		return "", &fs.PathError{Op: "readlink", Path: name, Err: err}
	}
	return string(target[:n]), nil
}

// relative makes an absolute path one below a tree.
func relative(name string) string {
	return strings.TrimPrefix(path.Clean("/"+name), "/")
}

package step

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/wasmshim/containerd-shim-wasm/argo/executor/artifact"
)

// volume is the folder that all containers of the pod share, at argo.VolumePath. Every container of the pod may write
// there, so no link below it is followed, and only regular files are read.
type volume struct{ path string }

// maxFile bounds a file with an output parameter, in bytes: the API server takes no object of that size.
const maxFile = 4 << 20

// open opens a file below the volume. The call never waits for a FIFO.
func (v volume) open(name string, flags int) (*os.File, error) {
	return openBeneath(v.path, name, flags, unix.RESOLVE_BENEATH|unix.RESOLVE_NO_SYMLINKS|unix.RESOLVE_NO_MAGICLINKS)
}

// inMain resolves paths as in the main container: a link leads nowhere else.
const inMain = unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS

func openBeneath(dir, name string, flags int, resolve uint64) (*os.File, error) {
	whole := dir + "/" + strings.TrimLeft(name, "/")
	root, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: whole, Err: err}
	}
	defer unix.Close(root)
	if flags&unix.O_PATH == 0 { // openat2(2) refuses flags that mean nothing
		flags |= unix.O_NONBLOCK | unix.O_NOCTTY
	}
	how := unix.OpenHow{Flags: uint64(flags | unix.O_CLOEXEC), Resolve: resolve}
	var fd int
	for range 100 { // EAGAIN: a rename in the meantime (openat2(2))
		fd, err = unix.Openat2(root, strings.TrimLeft(name, "/"), &how)
		if !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EINTR) {
			break
		}
	}
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: whole, Err: err}
	}
	return os.NewFile(uintptr(fd), whole), nil
}

// readRegular reads the last bytes of a regular file, at most limit+1 of them.
func readRegular(f *os.File, limit int64) ([]byte, error) {
	defer f.Close()
	size, err := artifact.Size(f)
	if err != nil {
		return nil, err
	}
	return io.ReadAll(io.NewSectionReader(f, max(0, size-limit-1), limit+1))
}

// closeUnless returns a file, or closes it if there is an error.
func closeUnless(f *os.File, err error) (*os.File, error) {
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// renamed returns an open file under another name, and closes the one it has been.
func renamed(f *os.File, name string) (*os.File, error) {
	defer f.Close()
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: f.Name(), Err: err}
	}
	return os.NewFile(uintptr(fd), name), nil
}

// readAll reads a regular file of at most maxFile bytes.
func readAll(f *os.File) (string, error) {
	text, err := readRegular(f, maxFile)
	if err == nil && len(text) > maxFile {
		err = &os.PathError{Op: "read", Path: f.Name(), Err: fmt.Errorf("it has more than %d bytes", maxFile)}
	}
	return string(text), err
}

// exists reports whether anything is at a path below the volume. What cannot be looked at counts: a container that
// plants a link there has ended as far as others can know.
func (v volume) exists(name string) bool {
	f, err := v.open(name, unix.O_PATH)
	if err != nil {
		return !saysNothing(err)
	}
	f.Close()
	return true
}

// saysNothing reports whether an error of openat2(2) leaves open what is at a path, or says that nothing is: the node
// may be short of files or memory for a moment.
func saysNothing(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.EMFILE) || errors.Is(err, unix.ENFILE) || errors.Is(err, unix.ENOMEM)
}

// replace puts a file with a mode at a path below the volume, whole from the moment that it is there. Whatever has been
// planted at the path is gone.
func (v volume) replace(name string, mode uint32, write func(io.Writer) error) error {
	dir, err := v.open(path.Dir(name), unix.O_PATH|unix.O_DIRECTORY)
	if failed := (*os.PathError)(nil); errors.As(err, &failed) {
		return &os.PathError{Op: "open", Path: v.path + "/" + name, Err: failed.Err}
	}
	defer dir.Close()
	at, part := int(dir.Fd()), "."+path.Base(name)+"."+rand.Text()
	fd, err := unix.Openat(at, part, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, mode)
	if err != nil {
		return &os.PathError{Op: "open", Path: v.path + "/" + name, Err: err}
	}
	f := os.NewFile(uintptr(fd), v.path+"/"+name)
	err = errors.Join(write(f), f.Close())
	if err == nil {
		if err = unix.Renameat(at, part, at, path.Base(name)); err == nil {
			return nil
		}
		err = &os.PathError{Op: "rename", Path: v.path + "/" + name, Err: err}
	}
	_ = unix.Unlinkat(at, part, 0) // the error before says more
	return err
}

// write replaces a file by one with a text.
func (v volume) write(name, text string, mode uint32) error {
	return v.replace(name, mode, func(w io.Writer) error {
		_, err := io.WriteString(w, text)
		return err
	})
}

// mkdir creates a folder of the volume and those above it.
func (v volume) mkdir(name string, mode os.FileMode) error {
	root, err := os.OpenRoot(v.path)
	if err != nil {
		return err
	}
	defer root.Close()
	return root.MkdirAll(name, mode)
}

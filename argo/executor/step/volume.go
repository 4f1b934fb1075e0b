package step

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// volume is the folder that all containers of the pod share, at /var/run/argo. Every container of the pod may write
// there, so no link below it is followed, and only regular files are read.
type volume struct{ path string }

const varRunArgo = "/var/run/argo"

// maxFile bounds a file with an output parameter, in bytes: the API server takes no object of that size.
const maxFile = 4 << 20

// open opens a file below the volume. The call never waits for a FIFO.
func (v volume) open(name string, flags int, mode uint32) (*os.File, error) {
	return openBeneath(v.path, name, flags, mode, unix.RESOLVE_BENEATH|unix.RESOLVE_NO_SYMLINKS|unix.RESOLVE_NO_MAGICLINKS)
}

func openBeneath(dir, name string, flags int, mode uint32, resolve uint64) (*os.File, error) {
	path := dir + "/" + strings.TrimLeft(name, "/")
	root, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	defer unix.Close(root)
	if flags&unix.O_PATH == 0 { // openat2(2) refuses flags that mean nothing
		flags |= unix.O_NONBLOCK | unix.O_NOCTTY
	}
	how := unix.OpenHow{Flags: uint64(flags | unix.O_CLOEXEC), Mode: uint64(mode), Resolve: resolve}
	var fd int
	for range 100 { // EAGAIN: a rename in the meantime (openat2(2))
		fd, err = unix.Openat2(root, strings.TrimLeft(name, "/"), &how)
		if !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EINTR) {
			break
		}
	}
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	return os.NewFile(uintptr(fd), path), nil
}

// readRegular reads the last bytes of a regular file, at most limit+1 of them.
func readRegular(f *os.File, limit int64) ([]byte, error) {
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, &os.PathError{Op: "read", Path: f.Name(), Err: errors.New("it is not a regular file")}
	}
	return io.ReadAll(io.NewSectionReader(f, max(0, info.Size()-limit-1), limit+1))
}

// readAll reads a regular file of at most maxFile bytes.
func readAll(f *os.File) (string, error) {
	text, err := readRegular(f, maxFile)
	if err == nil && len(text) > maxFile {
		err = &os.PathError{Op: "read", Path: f.Name(), Err: fmt.Errorf("it has more than %d bytes", maxFile)}
	}
	return string(text), err
}

// exists reports whether something other than a link is at a path below the volume.
func (v volume) exists(name string) bool {
	f, err := v.open(name, unix.O_PATH, 0)
	if err != nil {
		return false
	}
	f.Close()
	return true
}

// write writes a file below the volume, which it creates if need be.
func (v volume) write(name, text string, mode uint32) error {
	f, err := v.open(name, unix.O_WRONLY|unix.O_CREAT|unix.O_TRUNC, mode)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	return errors.Join(err, f.Close())
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

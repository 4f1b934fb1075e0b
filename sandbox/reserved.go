package sandbox

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// Reserved is a directory of the container that the guest may read but not
// write, while the worker reaches it, with the rights the specification gives, at
// the same path of its own root.
type Reserved struct {
	// Path is the destination of one of the specification's mounts, or empty for none.
	Path string
	// Shared is the name of a file in it that the guest may write nevertheless, or empty
	// for none. It is created if it is missing and the process may create it.
	Shared string
}

// reserve shows a directory of the container to the worker alone: a copy of its
// mount goes to the same path of the worker's root, and the guest's becomes
// read-only, except for a mount of the shared file on itself.
func (s *Sandbox) reserve(r Reserved, process *specs.Process) error {
	if r.Path == "" {
		return nil
	}
	volume, err := openat2(s.root, r.Path, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return fmt.Errorf("reserve %s: %w", r.Path, err)
	}
	defer unix.Close(volume)
	if err := s.copyToWorker(volume, r.Path); err != nil {
		return fmt.Errorf("reserve %s: %w", r.Path, err)
	}
	if err := coverPath(s.root, r.Path, readonlyCopy); err != nil {
		return fmt.Errorf("make %s read-only: %w", r.Path, err)
	}
	if r.Shared == "" {
		return nil
	}
	shared := filepath.Join(r.Path, r.Shared)
	if err := s.share(volume, r.Shared, shared, process); err != nil {
		return fmt.Errorf("let the guest write %s: %w", shared, err)
	}
	return nil
}

func (s *Sandbox) copyToWorker(volume int, path string) error {
	mount, err := cloneTree(descriptorPath(volume), true)
	if err != nil {
		return err
	}
	defer unix.Close(mount)
	at := s.base + filepath.Clean("/"+path)
	if err := os.MkdirAll(at, 0o755); err != nil {
		return err
	}
	return attachAt(at, mount)
}

// share mounts the file called name in volume, still writable there, over the
// read-only one that the guest sees at path.
func (s *Sandbox) share(volume int, name, path string, process *specs.Process) error {
	file, err := sharedFile(volume, name, process)
	if errors.Is(err, unix.ENOENT) {
		return nil // the container may not create it either
	}
	if err != nil {
		return err
	}
	defer unix.Close(file)
	mount, err := cloneTree(descriptorPath(file), false)
	if err != nil {
		return err
	}
	defer unix.Close(mount)
	return coverPath(s.root, path, func(int) (int, error) { return unix.Dup(mount) })
}

// sharedFile returns an O_PATH descriptor of a regular file, which is created if it is missing and the
// process may create it. Another container may have left something else in its place: no link is
// followed, and only a regular file is accepted.
func sharedFile(dir int, name string, process *specs.Process) (int, error) {
	err := as(process, func() error { return makeFile(dir, name) })
	if err != nil && !errors.Is(err, unix.EEXIST) && !errors.Is(err, unix.EACCES) && !errors.Is(err, unix.EROFS) {
		return -1, err
	}
	fd, err := unix.Openat(dir, name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		unix.Close(fd)
		return -1, err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		unix.Close(fd)
		return -1, ErrNotRegular
	}
	return fd, nil
}

// makeFile creates a file that every user may read and write.
func makeFile(dir int, name string) error {
	fd, err := unix.Openat(dir, name, unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o666)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return unix.Fchmod(fd, 0o666) // whatever the umask
}

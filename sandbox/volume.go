package sandbox

import (
	"errors"
	"fmt"
	"os"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// InVolume runs step in the directory of a container's bind mount, with only the rights that
// a process of the container has there: through a mount with the same options, so
// that a read-only one is read-only, and with the process's user, groups and capabilities. root
// is opened with O_PATH and closed after step, which must stay on its goroutine.
// Mounts below the directory are not visible.
func InVolume(m specs.Mount, process *specs.Process, step func(root *os.File) error) error {
	fd, err := volume(m)
	if err != nil {
		return fmt.Errorf("open volume %s: %w", m.Source, err)
	}
	root := os.NewFile(uintptr(fd), m.Destination)
	defer root.Close()
	return as(process, func() error { return step(root) })
}

// as runs step on a thread of its own with the user, the groups and the capabilities of a process.
func as(process *specs.Process, step func() error) error {
	t := newThread()
	defer t.end()
	return t.do(func() error {
		if err := setCredentials(executed(process)); err != nil {
			return err
		}
		return step()
	})
}

// executed returns a process with those capabilities of the specification that are left
// after it has executed its program: only the ambient ones for a user other than root
// (capabilities(7), "Transformation of capabilities during execve()").
func executed(process *specs.Process) *specs.Process {
	if process.User.UID == 0 || process.Capabilities == nil {
		return process
	}
	after, caps := *process, *process.Capabilities
	caps.Effective, caps.Permitted = caps.Ambient, caps.Ambient
	after.Capabilities = &caps
	return &after
}

// volume returns the detached mount.
func volume(m specs.Mount) (int, error) {
	options, err := parseMountOptions(m.Options)
	if err != nil {
		return -1, err
	}
	if m.Type != "bind" && !options.bind {
		return -1, errors.New("it is no bind mount")
	}
	if len(m.UIDMappings) > 0 || len(m.GIDMappings) > 0 {
		return -1, errIDMapped
	}
	options.recursive, options.propagation = false, nil
	fd, err := detachedBind(m.Source, options)
	if err != nil {
		return -1, err
	}
	if isDir, err := isDirectory(fd); err != nil || !isDir {
		unix.Close(fd)
		return -1, errors.Join(err, unix.ENOTDIR)
	}
	return fd, nil
}

// CloneFolder returns a folder of the host as the root of a detached mount: no path leads out of it. Nothing in it can be
// executed.
func CloneFolder(path string) (*os.File, error) {
	fd, err := cloneTree(path, false)
	if err != nil {
		return nil, err
	}
	if err := setattr(fd, unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV|unix.MOUNT_ATTR_NOEXEC, 0, 0, false); err != nil {
		unix.Close(fd)
		return nil, err
	}
	return os.NewFile(uintptr(fd), path), nil
}

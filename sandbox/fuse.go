package sandbox

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Fuse is a mount of a file system that another process serves (fuse(4)). It is attached to no directory before a launch.
// Nothing here makes a request to that process: a process that does not answer hangs nobody but those who read its files.
type Fuse struct {
	// Path is where the mount goes in the container. What is there already must be of the same kind.
	Path string
	// Folder tells a file system whose root is a folder from one whose root is a regular file.
	Folder bool
	mount  *os.File
}

// OpenFuse returns a descriptor by which a process serves one file system. Until MountFuse it is of no use. The file
// system ends when all copies of the descriptor are closed.
func OpenFuse() (*os.File, error) {
	// Not by os.OpenFile: the descriptor must block, and stay out of the Go runtime's poller.
	fd, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: "/dev/fuse", Err: err}
	}
	return os.NewFile(uintptr(fd), "/dev/fuse"), nil
}

// MountFuse mounts the file system that is served by a descriptor. The kernel checks the permissions of its files for all
// users alike (allow_other, default_permissions: fuse.rst of the kernel's documentation). The caller closes it.
func MountFuse(device *os.File, path string, folder bool) (Fuse, error) {
	rootmode := unix.S_IFREG
	if folder {
		rootmode = unix.S_IFDIR
	}
	fd, err := newFilesystem("fuse", "artifact", mountOptions{
		set: unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV | unix.MOUNT_ATTR_NOEXEC,
		data: []string{
			fmt.Sprintf("fd=%d", device.Fd()), fmt.Sprintf("rootmode=%o", rootmode), "user_id=0", "group_id=0", "allow_other", "default_permissions",
		},
	})
	if err != nil {
		return Fuse{}, err
	}
	return Fuse{Path: path, Folder: folder, mount: os.NewFile(uintptr(fd), path)}, nil
}

// Close gives the mount up unless it has been attached.
func (f Fuse) Close() error { return f.mount.Close() }

// attachFuse attaches the mounts. The kind of a mount's root is known: to look at it would be a request.
func attachFuse(root int, all []Fuse) error {
	for _, f := range all {
		target, _, err := mountpoint(root, f.Path, f.Folder)
		if err != nil {
			return err
		}
		err = attach(int(f.mount.Fd()), target)
		unix.Close(target)
		if err != nil {
			return fmt.Errorf("mount an artifact at %s: %w", f.Path, err)
		}
	}
	return nil
}

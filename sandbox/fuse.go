package sandbox

import (
	"fmt"
	"os"
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/wasmshim/containerd-shim-wasm/internal/place"
)

// Fuse is a mount of a file system that another process serves (fuse(4)). It is attached to no directory before a launch.
// Nothing here makes a request to that process: a process that does not answer hangs nobody but those who read its files.
type Fuse struct {
	// Path is where the mount goes in the container. What is there already must be of the same kind.
	Path string
	// Folder tells a file system whose root is a folder from one whose root is a regular file.
	Folder bool
	// OnMount tells that a mount of the specification is at the path, over which this one goes. Otherwise the path must be
	// apart from all of those.
	OnMount    bool
	Connection *Connection
	mount      *os.File
}

// fuseSource is the name by which our mounts are known in /proc/PID/mountinfo.
const fuseSource = "wasm-shim-artifact"

// OpenFuse returns a descriptor by which a process serves one file system. Until MountFuse it is of no use. The file
// system ends when all copies of the descriptor are closed, or with [Connection.Abort].
func OpenFuse() (*os.File, error) {
	// Not by os.OpenFile: the descriptor must block, and stay out of the Go runtime's poller.
	fd, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: "/dev/fuse", Err: err}
	}
	return os.NewFile(uintptr(fd), "/dev/fuse"), nil
}

// MountFuse mounts the file system that is served by a descriptor. The kernel checks the permissions of its files for all
// users alike (allow_other, default_permissions: fuse.rst of the kernel's documentation). The caller closes it, and its
// connection.
func MountFuse(device *os.File, path string, folder bool) (Fuse, error) {
	rootmode := unix.S_IFREG
	if folder {
		rootmode = unix.S_IFDIR
	}
	fd, err := newFilesystem("fuse", fuseSource, mountOptions{
		set: unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV | unix.MOUNT_ATTR_NOEXEC,
		data: []string{
			fmt.Sprintf("fd=%d", device.Fd()), fmt.Sprintf("rootmode=%o", rootmode), "user_id=0", "group_id=0", "allow_other", "default_permissions",
		},
	})
	if err != nil {
		return Fuse{}, err
	}
	mount := os.NewFile(uintptr(fd), path)
	connection, err := connectionOf(mount)
	if err != nil {
		mount.Close()
		return Fuse{}, err
	}
	return Fuse{Path: path, Folder: folder, Connection: connection, mount: mount}, nil
}

// Close gives the mount up unless it has been attached.
func (f Fuse) Close() error { return f.mount.Close() }

// attachFuse attaches the mounts, after everything else has been made in the root: from then on, a path that leads below one
// of them is a request to a process that may not answer. For the same reason all places are found before the first is taken,
// and the kind of a mount's root is known.
func (s *Sandbox) attachFuse(all []Fuse, spec *specs.Spec) error {
	if len(all) == 0 {
		return nil
	}
	mounts, err := mountPlaces(s.root, spec)
	if err != nil {
		return err
	}
	targets := make([]int, 0, len(all))
	defer func() {
		for _, fd := range targets {
			unix.Close(fd)
		}
	}()
	for _, f := range all {
		target, at, err := mountpoint(s.root, f.Path, f.Folder)
		if err != nil {
			return err
		}
		targets = append(targets, target)
		if err := f.mayBeAt(at, mounts, s.served); err != nil {
			return fmt.Errorf("mount an artifact at %s: %w", f.Path, err)
		}
		s.served = append(s.served, served{at, f.Connection.number})
	}
	for i, f := range all {
		if err := attach(int(f.mount.Fd()), targets[i]); err != nil {
			return fmt.Errorf("mount an artifact at %s: %w", f.Path, err)
		}
	}
	return nil
}

// mountPlaces returns where the specification's mounts are, without links.
func mountPlaces(root int, spec *specs.Spec) ([]string, error) {
	var places []string
	for _, m := range spec.Mounts {
		names, err := expand(root, clean(m.Destination))
		if err != nil {
			return nil, pathError("find the mount", m.Destination, err)
		}
		places = append(places, "/"+strings.Join(names, "/"))
	}
	return places, nil
}

// mayBeAt returns an error if the mount cannot be at the place that its path leads to, because of a link in the image.
func (f Fuse) mayBeAt(at string, mounts []string, others []served) error {
	if f.OnMount {
		mounts = slices.DeleteFunc(slices.Clone(mounts), func(m string) bool { return m == at })
	}
	for _, other := range others {
		mounts = append(slices.Clip(mounts), other.at)
	}
	for _, m := range mounts {
		if place.Nested(m, at) {
			return fmt.Errorf("it leads to %s, which is at, above or below another mount, %s: choose another path", at, m)
		}
	}
	if p, system := place.OfSystem(at); system {
		return fmt.Errorf("it leads to %s, which is at %s: the system mounts that itself", at, p)
	}
	return nil
}

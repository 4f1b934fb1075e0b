package sandbox

import (
	"errors"
	"fmt"
	"path/filepath"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// MountCgroups makes the specification's "cgroup" mounts in the root of the
// worker with the given pid. It comes after the launch, because a container's
// cgroup exists only once a process is in it (systemd makes no empty scope).
// paths is the cgroup's directory per controller, under "" for the unified
// hierarchy. The caller does it before it lets the guest run.
//
// The mount shows the container's own cgroup as the root, as a cgroup namespace
// would.
func MountCgroups(pid int, spec *specs.Spec, paths map[string]string) error {
	for _, m := range spec.Mounts {
		if m.Type != "cgroup" && m.Type != "cgroup2" {
			continue
		}
		if err := mountCgroup(pid, m, paths); err != nil {
			return fmt.Errorf("mount %s (cgroup): %w", m.Destination, err)
		}
	}
	return nil
}

func mountCgroup(pid int, m specs.Mount, paths map[string]string) error {
	options, err := parseMountOptions(m.Options)
	if err != nil {
		return err
	}
	trees, err := cgroupTrees(paths, options)
	defer closeAll(trees)
	if err != nil {
		return err
	}
	s, err := Join(pid)
	if err != nil {
		return err
	}
	defer s.Close()
	return s.thread.do(func() error { return attachCgroup(s.root, m.Destination, trees, options) })
}

// cgroupTrees clones the cgroup's directories on the host.
func cgroupTrees(paths map[string]string, options mountOptions) (map[string]int, error) {
	trees := map[string]int{}
	for controller, path := range paths {
		fd, err := cloneTree(path, false)
		if errors.Is(err, unix.ENOENT) {
			continue
		}
		if err != nil {
			return trees, err
		}
		trees[controller] = fd
		if err := setAttributes(fd, options); err != nil {
			return trees, err
		}
	}
	return trees, nil
}

func closeAll(fds map[string]int) {
	for _, fd := range fds {
		unix.Close(fd)
	}
}

func attachCgroup(root int, destination string, trees map[string]int, options mountOptions) error {
	target, err := mountpoint(root, destination, true)
	if err != nil {
		return err
	}
	defer unix.Close(target)
	if unified, ok := trees[""]; ok {
		return attach(unified, target)
	}
	return attachControllers(root, target, destination, trees, options)
}

// attachControllers gives cgroup v1 one directory per controller.
func attachControllers(root, target int, destination string, trees map[string]int, options mountOptions) error {
	top, err := newFilesystem("tmpfs", "cgroup", mountOptions{
		set: unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV | unix.MOUNT_ATTR_NOEXEC, data: []string{"mode=0755", "size=64k"},
	})
	if err != nil {
		return err
	}
	defer unix.Close(top)
	if err := attach(top, target); err != nil {
		return err
	}
	for controller, tree := range trees {
		at, err := mountpoint(root, filepath.Join(destination, controller), true)
		if err != nil {
			return err
		}
		err = attach(tree, at)
		unix.Close(at)
		if err != nil {
			return err
		}
	}
	return setattr(top, options.set&unix.MOUNT_ATTR_RDONLY, 0, 0, false)
}

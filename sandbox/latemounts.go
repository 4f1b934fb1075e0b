package sandbox

import (
	"errors"
	"fmt"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// MountCgroups makes the specification's "cgroup" mounts in the root of the
// worker. It comes after the launch, because a container's
// cgroup exists only once a process is in it (systemd makes no empty scope).
// paths is the cgroup's directory per controller, under "" for the unified
// hierarchy. The caller must call it before it lets the guest run.
//
// The mount shows the container's own cgroup as the root, as a cgroup namespace
// would.
func MountCgroups(worker Child, spec *specs.Spec, paths map[string]string) error {
	for _, m := range spec.Mounts {
		if !isCgroup(m) {
			continue
		}
		if err := mountCgroup(worker, m, paths); err != nil {
			return fmt.Errorf("mount %s (cgroup): %w", m.Destination, err)
		}
	}
	return nil
}

func mountCgroup(worker Child, m specs.Mount, paths map[string]string) error {
	options, err := parseMountOptions(m.Options)
	if err != nil {
		return err
	}
	trees, err := cgroupTrees(paths, options)
	defer closeAll(trees)
	if err != nil {
		return err
	}
	s, err := Join(worker)
	if err != nil {
		return err
	}
	defer s.Close()
	return s.thread.do(func() error { return attachCgroup(s.root, m.Destination, trees, options) })
}

// cgroupTrees clones the cgroup's directories on the host, by their names in the
// container: "" for the only one of a unified hierarchy.
func cgroupTrees(paths map[string]string, options mountOptions) (map[string]int, error) {
	trees := map[string]int{}
	for controller, path := range paths {
		name := hierarchy(controller, path)
		if _, ok := trees[name]; ok || name == "" && len(paths) > 1 {
			continue // the second of two controllers in one hierarchy, or v2 beside v1, which runc does not show
		}
		fd, err := cloneTree(path, false)
		if errors.Is(err, unix.ENOENT) {
			continue
		}
		if err != nil {
			return trees, err
		}
		trees[name] = fd
		if err := setAttributes(fd, options); err != nil {
			return trees, err
		}
	}
	return trees, nil
}

// hierarchy returns the name of a v1 controller's hierarchy below /sys/fs/cgroup, "cpu,cpuacct" for
// two that share one; path is a directory in it.
func hierarchy(controller, path string) string {
	if controller == "" {
		return ""
	}
	if below, ok := strings.CutPrefix(path, "/sys/fs/cgroup/"); ok {
		name, _, _ := strings.Cut(below, "/")
		return name
	}
	return strings.TrimPrefix(controller, "name=")
}

func closeAll(fds map[string]int) {
	for _, fd := range fds {
		unix.Close(fd)
	}
}

func attachCgroup(root int, destination string, trees map[string]int, options mountOptions) error {
	target, err := mkdirAll(root, destination) // it exists by now, see mountAll
	if err != nil {
		return err
	}
	defer unix.Close(target)
	if unified, ok := trees[""]; ok {
		return attach(unified, target)
	}
	return attachHierarchies(target, trees, options)
}

// attachHierarchies gives cgroup v1 one directory per hierarchy and, where controllers share
// one, a link for each.
func attachHierarchies(target int, trees map[string]int, options mountOptions) error {
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
	for name, tree := range trees {
		if err := attachHierarchy(top, name, tree); err != nil {
			return fmt.Errorf("show %s: %w", name, err)
		}
	}
	return setattr(top, options.set&unix.MOUNT_ATTR_RDONLY, 0, 0, false)
}

func attachHierarchy(top int, name string, tree int) error {
	at, err := mkdirAll(top, name)
	if err != nil {
		return err
	}
	defer unix.Close(at)
	if err := attach(tree, at); err != nil {
		return err
	}
	controllers := strings.Split(name, ",")
	if len(controllers) == 1 {
		return nil
	}
	for _, controller := range controllers {
		if err := unix.Symlinkat(name, top, controller); err != nil {
			return err
		}
	}
	return nil
}

package sandbox

import (
	"errors"
	"fmt"
	"os"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// mountAll makes the OCI mounts of the specification in their order. For a
// "cgroup" mount it makes the mount point only: the worker gets a cgroup later (see
// MountCgroups), when the root file system may be read-only.
func mountAll(root int, spec *specs.Spec) error {
	var procs []int
	defer func() {
		for _, fd := range procs {
			unix.Close(fd)
		}
	}()
	for _, m := range spec.Mounts {
		fd, err := mountOne(root, m, spec)
		if err != nil {
			return fmt.Errorf("mount %s (%s from %s): %w", m.Destination, m.Type, m.Source, err)
		}
		if m.Type == "proc" {
			procs = append(procs, fd)
			continue
		}
		unix.Close(fd)
	}
	// The mount points in it exist now, and no process has seen it yet.
	for _, fd := range procs {
		if err := setattr(fd, unix.MOUNT_ATTR_RDONLY, 0, 0, false); err != nil {
			return fmt.Errorf("make /proc read-only: %w", err)
		}
	}
	return nil
}

func isCgroup(m specs.Mount) bool { return m.Type == "cgroup" || m.Type == "cgroup2" }

func mountLabel(spec *specs.Spec) string {
	if spec.Linux == nil {
		return ""
	}
	return spec.Linux.MountLabel
}

var errIDMapped = errors.New("id-mapped mounts (uidMappings, gidMappings) are not supported in Wasm containers")

// mountOne makes one mount and returns a descriptor of it, or of a cgroup's mount point.
func mountOne(root int, m specs.Mount, spec *specs.Spec) (int, error) {
	if isCgroup(m) {
		fd, _, err := mountpoint(root, m.Destination, true)
		return fd, err
	}
	if len(m.UIDMappings) > 0 || len(m.GIDMappings) > 0 {
		return -1, errIDMapped
	}
	options, err := parseMountOptions(m.Options)
	if err != nil {
		return -1, err
	}
	if err := suitTarget(root, m, &options); err != nil {
		return -1, err
	}
	fd, err := detachedMount(m, options, mountLabel(spec))
	if err != nil {
		return -1, err
	}
	if err := attachBelow(root, fd, m); err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// suitTarget checks the file at a mount's destination, as runc does: a tmpfs takes over
// its mode, and sysfs, like proc, is not mounted through a link, which would put it at an
// unexpected place.
func suitTarget(root int, m specs.Mount, options *mountOptions) error {
	var flags uint64 = unix.O_PATH
	switch m.Type {
	case "tmpfs":
	case "proc", "sysfs":
		flags |= unix.O_NOFOLLOW
	default:
		return nil
	}
	fd, err := openat2(root, clean(m.Destination), flags, 0)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return pathError("open mount point", m.Destination, err)
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return pathError("stat", m.Destination, err)
	}
	if m.Type == "tmpfs" {
		options.data = append([]string{fmt.Sprintf("mode=%04o", st.Mode&0o7777)}, options.data...)
		return nil
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		return fmt.Errorf("the image has a link or a file there: %s is mounted on a directory only", m.Type)
	}
	return nil
}

// attachBelow puts a detached mount where its destination leads to.
func attachBelow(root, fd int, m specs.Mount) error {
	isDir, err := isDirectory(fd)
	if err != nil {
		return err
	}
	target, at, err := mountpoint(root, m.Destination, isDir)
	if err != nil {
		return err
	}
	defer unix.Close(target)
	if err := checkProc(at, fd, m.Type); err != nil {
		return err
	}
	return attach(fd, target)
}

// detachedMount makes the mount itself, not yet visible anywhere.
func detachedMount(m specs.Mount, options mountOptions, label string) (int, error) {
	switch {
	case m.Type == "bind" || options.bind:
		return detachedBind(m.Source, options)
	case m.Type == "proc":
		return emptyProc()
	}
	if label != "" && (m.Type == "tmpfs" || m.Type == "mqueue" || m.Type == "devpts") {
		options.data = append(options.data, "context="+label)
	}
	fd, err := newFilesystem(m.Type, m.Source, options)
	if err != nil {
		return -1, err
	}
	if err := setPropagation(fd, options); err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

func detachedBind(source string, options mountOptions) (int, error) {
	if len(options.data) > 0 {
		return -1, fmt.Errorf("mount option %q is unknown for a bind mount", options.data[0])
	}
	fd, err := cloneTree(source, options.recursive)
	if err != nil {
		return -1, err
	}
	if err := setAttributes(fd, options); err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

func setPropagation(fd int, options mountOptions) error {
	return setAttributes(fd, mountOptions{propagation: options.propagation})
}

func isDirectory(fd int) (bool, error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return false, fmt.Errorf("stat mount: %w", err)
	}
	return st.Mode&unix.S_IFMT == unix.S_IFDIR, nil
}

// hidePaths covers linux.maskedPaths and write-protects linux.readonlyPaths.
func hidePaths(root int, linux *specs.Linux) error {
	for _, path := range linux.MaskedPaths {
		if err := coverPath(root, path, coverFor); err != nil {
			return fmt.Errorf("mask %s: %w", path, err)
		}
	}
	for _, path := range linux.ReadonlyPaths {
		if err := coverPath(root, path, readonlyCopy); err != nil {
			return fmt.Errorf("make %s read-only: %w", path, err)
		}
	}
	return nil
}

// coverPath mounts the result of cover on path. It is a no-op if path does not
// exist.
func coverPath(root int, path string, cover func(target int) (int, error)) error {
	target, err := openat2(root, path, unix.O_PATH, 0)
	if isAbsent(err) {
		return nil
	}
	if err != nil {
		return err
	}
	defer unix.Close(target)
	fd, err := cover(target)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return attach(fd, target)
}

// coverFor returns a mount that hides target: an empty read-only directory for a directory, the
// null device for anything else.
func coverFor(target int) (int, error) {
	isDir, err := isDirectory(target)
	if err != nil {
		return -1, err
	}
	if isDir {
		return newFilesystem("tmpfs", "tmpfs", mountOptions{set: unix.MOUNT_ATTR_RDONLY, data: []string{"size=4k"}})
	}
	return cloneTree("/dev/null", false)
}

// readonlyCopy returns a detached copy of the mount at target, read-only.
func readonlyCopy(target int) (int, error) {
	fd, err := cloneTree(descriptorPath(target), true)
	if err != nil {
		return -1, err
	}
	if err := setattr(fd, unix.MOUNT_ATTR_RDONLY, 0, 0, true); err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// Executable returns a program's file on a mount of its own, so that it can be executed by its
// descriptor (/proc/self/fd/N) even if it lies on a file system that is mounted noexec. The
// caller closes both.
func Executable(program *os.File) (*os.File, error) {
	fd, err := cloneProgram(program)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), program.Name()), nil
}

// cloneProgram returns a detached read-only mount of an open file that lies on
// the host, or -1 for nil. The file may lie on a volume mounted noexec: the worker's
// binary is executed and the module's pages are mapped executable, so noexec is
// cleared on this one mount.
func cloneProgram(file *os.File) (int, error) {
	if file == nil {
		return -1, nil
	}
	fd, err := unix.OpenTree(int(file.Fd()), "", unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_EMPTY_PATH)
	if err != nil {
		return -1, pathError("open_tree", file.Name(), err)
	}
	set := uint64(unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV)
	if err := setattr(fd, set, unix.MOUNT_ATTR_NOEXEC, 0, false); err != nil {
		unix.Close(fd)
		return -1, pathError("protect", file.Name(), err)
	}
	return fd, nil
}

// attachAt attaches a detached mount at a path of the worker's own root.
func attachAt(path string, mount int) error {
	at, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return pathError("open", path, err)
	}
	defer unix.Close(at)
	return attach(mount, at)
}

package sandbox

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/moby/sys/mountinfo"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/wasmshim/containerd-shim-wasm/worker/control"
)

// Names in the worker's own root, the private tmpfs that holds its binary, its
// machine code and the container's root file system.
const (
	workerPath = control.WorkerPath
	codePath   = "/module"
	rootfsPath = "/rootfs"
)

// Mount is one of the mounts that containerd's snapshotter asks for to make the
// container's root file system.
type Mount struct {
	Type    string
	Source  string
	Target  string // below the root file system, usually empty
	Options []string
}

// newRoot makes the worker's future root at base, an existing directory of the
// host, in a mount namespace of the calling thread's own. The host never sees
// any of it: nothing has to be unmounted later and nothing can leak.
func newRoot(base string, propagation string) error {
	if err := unix.Unshare(unix.CLONE_NEWNS | unix.CLONE_FS); err != nil {
		return fmt.Errorf("unshare mount namespace: %w", err)
	}
	// Files that this thread creates get the modes it asks for; the container's own
	// umask is set just before the worker is forked.
	unix.Umask(0)
	if err := isolatePropagation(base, propagation); err != nil {
		return err
	}
	err := unix.Mount("tmpfs", base, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=0755,size=64k")
	if err != nil {
		return fmt.Errorf("mount the worker's root: %w", err)
	}
	if err := os.Mkdir(base+rootfsPath, 0o755); err != nil {
		return fmt.Errorf("create the container's root: %w", err)
	}
	return nil
}

// isolatePropagation keeps our mounts from the host. Slave is the default, so that
// mounts of the host still arrive in volumes that ask for it (rslave); a
// container with a bidirectional volume (linux.rootfsPropagation shared) keeps
// the peer groups, except for the mount that we put our root on.
func isolatePropagation(base, propagation string) error {
	p := unix.MS_REC | unix.MS_SLAVE
	switch propagation {
	case "", "slave", "rslave":
	case "private", "rprivate":
		p = unix.MS_REC | unix.MS_PRIVATE
	case "unbindable", "runbindable":
		return fmt.Errorf("linux.rootfsPropagation %q is not supported in Wasm containers", propagation)
	case "shared", "rshared":
		return privateParent(base)
	default:
		return fmt.Errorf("linux.rootfsPropagation %q is unknown", propagation)
	}
	if err := unix.Mount("", "/", "", uintptr(p), ""); err != nil {
		return fmt.Errorf("set propagation of /: %w", err)
	}
	return nil
}

func privateParent(base string) error {
	mounts, err := mountinfo.GetMounts(mountinfo.ParentsFilter(base))
	if err != nil {
		return fmt.Errorf("find the mount below %s: %w", base, err)
	}
	parent := "/"
	for _, m := range mounts {
		if len(m.Mountpoint) > len(parent) {
			parent = m.Mountpoint
		}
	}
	if err := unix.Mount("", parent, "", unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make %s private: %w", parent, err)
	}
	return nil
}

// mountRootfs mounts the container's root file system at target. Without
// mounts it bind-mounts the path of the specification there.
func mountRootfs(target string, mounts []Mount, root *specs.Root, bundle string) error {
	if len(mounts) == 0 {
		return bindRootfs(target, root, bundle)
	}
	for _, m := range mounts {
		at := target
		if m.Target != "" {
			at = filepath.Join(target, filepath.Clean("/"+m.Target))
		}
		if err := mountLayer(at, m); err != nil {
			return fmt.Errorf("mount root file system (%s from %s): %w", m.Type, m.Source, err)
		}
	}
	return nil
}

func bindRootfs(target string, root *specs.Root, bundle string) error {
	path := pathOf(root, bundle)
	if path == "" {
		return errors.New("container has no root file system: neither mounts nor root.path")
	}
	if err := unix.Mount(path, target, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("bind root file system %s: %w", path, err)
	}
	return nil
}

// pathOf returns the specification's path of the root file system, empty if there is none.
func pathOf(root *specs.Root, bundle string) string {
	switch {
	case root == nil || root.Path == "":
		return ""
	case filepath.IsAbs(root.Path):
		return root.Path
	}
	return filepath.Join(bundle, root.Path)
}

// mountLayer is mount(2) for the mounts of snapshotters: bind mounts and file systems
// with their options, on a loop device if an option asks for it.
func mountLayer(target string, m Mount) error {
	if needsHelper(m) {
		return errHelper
	}
	options, err := parseMountOptions(m.Options)
	if err != nil {
		return err
	}
	if m.Type == "bind" || options.bind {
		return bindLayer(target, m.Source, options)
	}
	source, data := m.Source, options.data
	if i := slices.Index(data, loopOption); i >= 0 {
		data = slices.Delete(slices.Clone(data), i, i+1)
		device, err := mount.SetupLoop(m.Source, mount.LoopParams{Readonly: options.set&unix.MOUNT_ATTR_RDONLY != 0, Autoclear: true})
		if err != nil {
			return fmt.Errorf("set up a loop device: %w", err)
		}
		defer device.Close() // the mount keeps it
		source = device.Name()
	}
	if m.Type == "overlay" {
		if data, err = shortenLowers(data); err != nil {
			return err
		}
	}
	joined := strings.Join(data, ",")
	// mount(2) takes one page of options.
	if len(joined) >= os.Getpagesize() {
		return fmt.Errorf("options are %d bytes long, the kernel takes %d: the image has too many layers", len(joined), os.Getpagesize()-1)
	}
	if err := unix.Mount(source, target, m.Type, legacyFlags(options), joined); err != nil {
		return err
	}
	for _, p := range options.propagation {
		if err := unix.Mount("", target, "", p.legacy(), ""); err != nil {
			return fmt.Errorf("set propagation: %w", err)
		}
	}
	return nil
}

// loopOption asks for a file to be mounted as if it were a disk.
const loopOption = "loop"

// errHelper refuses a root file system that a program of the host would have to serve: that program
// would be in the container's mount namespace, and pivot_root(2) would give it the container's
// root.
var errHelper = errors.New("it is served by a program (FUSE), which a Wasm container's root file system cannot be: " +
	"use another snapshotter for the image, such as overlayfs, or run the container with the runc runtime")

func needsHelper(m Mount) bool {
	return m.Type == "fuse" || strings.HasPrefix(m.Type, "fuse.") || strings.HasPrefix(m.Type, "fuse3.")
}

func bindLayer(target, source string, options mountOptions) error {
	fd, err := cloneTree(source, options.recursive)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := setAttributes(fd, options); err != nil {
		return err
	}
	return attachAt(target, fd)
}

func legacyFlags(options mountOptions) uintptr {
	var flags uintptr
	for attr, flag := range map[uint64]uintptr{
		unix.MOUNT_ATTR_RDONLY:      unix.MS_RDONLY,
		unix.MOUNT_ATTR_NOSUID:      unix.MS_NOSUID,
		unix.MOUNT_ATTR_NODEV:       unix.MS_NODEV,
		unix.MOUNT_ATTR_NOEXEC:      unix.MS_NOEXEC,
		unix.MOUNT_ATTR_NOATIME:     unix.MS_NOATIME,
		unix.MOUNT_ATTR_STRICTATIME: unix.MS_STRICTATIME,
		unix.MOUNT_ATTR_NODIRATIME:  unix.MS_NODIRATIME,
		unix.MOUNT_ATTR_NOSYMFOLLOW: unix.MS_NOSYMFOLLOW,
	} {
		if (options.set|options.setRec)&attr != 0 {
			flags |= flag
		}
	}
	return flags
}

// shortenLowers makes overlay's lowerdir list relative to the directory that
// all of them share, and changes this thread's working directory to it: an
// image of many layers does not fit into mount(2)'s page of options otherwise.
func shortenLowers(data []string) ([]string, error) {
	for i, option := range data {
		list, ok := strings.CutPrefix(option, "lowerdir=")
		if !ok || len(option) < os.Getpagesize()/2 {
			continue
		}
		lowers := strings.Split(list, ":")
		if slices.ContainsFunc(lowers, isOddPath) {
			return data, nil
		}
		dir := commonDir(lowers)
		if err := unix.Chdir(dir); err != nil {
			return nil, pathError("change to the layers' directory", dir, err)
		}
		for j := range lowers {
			lowers[j] = strings.TrimPrefix(lowers[j][len(dir):], "/")
		}
		short := append([]string(nil), data...)
		short[i] = "lowerdir=" + strings.Join(lowers, ":")
		return short, nil
	}
	return data, nil
}

// isOddPath reports whether a path does not come from a snapshotter: it is relative, not
// in its shortest form, the root itself, or a piece of a path with an escaped colon.
func isOddPath(path string) bool {
	return !filepath.IsAbs(path) || path == "/" || filepath.Clean(path) != path
}

// commonDir returns the deepest directory that is a proper parent of every path. The
// paths are absolute.
func commonDir(paths []string) string {
	dir := filepath.Dir(paths[0])
	for _, p := range paths[1:] {
		for dir != "/" && !strings.HasPrefix(p, dir+"/") {
			dir = filepath.Dir(dir)
		}
	}
	return dir
}

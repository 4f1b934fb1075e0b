package sandbox

import (
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// Mounts are made detached (open_tree(2), fsmount(2)), given their attributes,
// and only then attached (move_mount(2)): a read-only mount is never
// writable, and a target is a descriptor, never a path that
// could be exchanged meanwhile.
// See RATIONALE.md, "Why only the new mount API?"

// cloneTree returns a detached copy of the mount at path, a descriptor the
// caller closes.
func cloneTree(path string, recursive bool) (int, error) {
	flags := uint(unix.OPEN_TREE_CLONE | unix.OPEN_TREE_CLOEXEC)
	if recursive {
		flags |= unix.AT_RECURSIVE
	}
	fd, err := unix.OpenTree(unix.AT_FDCWD, path, flags)
	if err != nil {
		return -1, &os.PathError{Op: "open_tree", Path: path, Err: err}
	}
	return fd, nil
}

// newFilesystem returns a detached mount of a new instance of a file system.
func newFilesystem(fstype, source string, options mountOptions) (int, error) {
	fs, err := unix.Fsopen(fstype, unix.FSOPEN_CLOEXEC)
	if err != nil {
		return -1, fmt.Errorf("open file system %s: %w", fstype, err)
	}
	defer unix.Close(fs)
	if source != "" {
		if err := unix.FsconfigSetString(fs, "source", source); err != nil {
			return -1, fmt.Errorf("set source %s of file system %s: %w", source, fstype, err)
		}
	}
	for _, option := range options.data {
		if err := configure(fs, option); err != nil {
			return -1, fmt.Errorf("set option %q of file system %s: %w", option, fstype, err)
		}
	}
	if err := unix.FsconfigCreate(fs); err != nil {
		return -1, fmt.Errorf("create file system %s: %w", fstype, err)
	}
	fd, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, int(options.set|options.setRec))
	if err != nil {
		return -1, fmt.Errorf("mount file system %s: %w", fstype, err)
	}
	return fd, nil
}

func configure(fs int, option string) error {
	key, value, isPair := strings.Cut(option, "=")
	if isPair {
		return unix.FsconfigSetString(fs, key, value)
	}
	return unix.FsconfigSetFlag(fs, key)
}

// setAttributes applies the options to a detached mount.
func setAttributes(fd int, options mountOptions) error {
	if options.setRec|options.clearRec != 0 {
		if err := setattr(fd, options.setRec, options.clearRec, 0, true); err != nil {
			return err
		}
	}
	if options.set|options.clear != 0 {
		if err := setattr(fd, options.set, options.clear, 0, false); err != nil {
			return err
		}
	}
	for _, p := range options.propagation {
		if err := setattr(fd, 0, 0, p.kind, p.recursive); err != nil {
			return err
		}
	}
	return nil
}

func setattr(fd int, set, clear, propagation uint64, recursive bool) error {
	if set&unix.MOUNT_ATTR__ATIME != 0 {
		clear |= unix.MOUNT_ATTR__ATIME
	}
	flags := uint(unix.AT_EMPTY_PATH)
	if recursive {
		flags |= unix.AT_RECURSIVE
	}
	attr := &unix.MountAttr{Attr_set: set, Attr_clr: clear, Propagation: propagation}
	if err := unix.MountSetattr(fd, "", flags, attr); err != nil {
		return fmt.Errorf("set mount attributes: %w", err)
	}
	return nil
}

// attach puts a detached mount on the file or directory that target denotes.
func attach(mount, target int) error {
	err := unix.MoveMount(mount, "", target, "", unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH)
	if err != nil {
		return fmt.Errorf("attach mount: %w", err)
	}
	return nil
}

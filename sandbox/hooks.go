package sandbox

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// hookUmask is the usual one. The thread's own is 0.
const hookUmask = 0o022

// runHooks runs the createContainer hooks.
func (s *Sandbox) runHooks(ctx context.Context, l Launch) error {
	if l.CreateContainer == nil {
		return nil
	}
	return s.atSpecifiedPath(func(rootfs string) error {
		defer unix.Umask(unix.Umask(hookUmask))
		return l.CreateContainer(ctx, rootfs)
	})
}

// atSpecifiedPath calls use while the root file system is at root.path of the specification, where
// hooks look for it. The root file system is moved, not bind-mounted, so that mounts made by use stay
// in it. It is there in this mount namespace only.
func (s *Sandbox) atSpecifiedPath(use func(rootfs string) error) error {
	if s.path == "" {
		return errors.New("root.path is missing: a createContainer hook has nowhere to look for the root file system")
	}
	path, err := filepath.EvalSymlinks(s.path)
	if err != nil {
		return fmt.Errorf("find root.path for the createContainer hooks: %w", err)
	}
	if err := privateParent(path); err != nil {
		return err
	}
	if err := s.moveRoot(path); err != nil {
		return err
	}
	if err := use(path); err != nil {
		return err
	}
	return s.returnRoot()
}

// returnRoot moves the root file system to its place in the worker's root. A mount on top of it
// moves along, and is the root file system from then on.
func (s *Sandbox) returnRoot() error {
	path := s.base + rootfsPath
	if err := s.moveRoot(path); err != nil {
		return err
	}
	unix.Close(s.root)
	s.root = -1
	return s.openRoot(path)
}

func (s *Sandbox) moveRoot(path string) error {
	return pathError("move root file system to", path, unix.MoveMount(s.root, "", unix.AT_FDCWD, path, unix.MOVE_MOUNT_F_EMPTY_PATH))
}

package sandbox

import (
	"fmt"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// CheckNative refuses, as Check does, a specification that a launch with
// Launch.Native cannot honour. The caller can use another runtime instead,
// so rarely used fields are refused too: a security label,
// because the label's policy would have to allow the worker, which the process is
// before it is the program; a mount of the cgroups, which would come late; and a
// working directory, which runc enters with more rights than the stand-in has.
func CheckNative(spec *specs.Spec) error {
	if err := Check(spec); err != nil {
		return err
	}
	for _, m := range spec.Mounts {
		if isCgroup(m) {
			return fmt.Errorf("mount %s (%s) is not supported in a native launch", m.Destination, m.Type)
		}
	}
	return checkAbsent([]refused{
		{"hooks", spec.Hooks != nil},
		{"process.apparmorProfile", spec.Process.ApparmorProfile != "" && spec.Process.ApparmorProfile != "unconfined"},
		{"process.selinuxLabel", spec.Process.SelinuxLabel != ""},
		{"process.cwd", spec.Process.Cwd != "" && spec.Process.Cwd != "/"},
		{"process.terminal", spec.Process.Terminal},
	})
}

// standInName is the name of the worker in the directory from which it stands in
// for a native program.
const standInName = "worker"

// standIn returns a directory that holds the worker and is mounted nowhere: a
// process whose root is the container's can be started in it, and has no way back
// once it has left.
func (s *Sandbox) standIn(worker int) (int, error) {
	dir := s.base + "/stand-in"
	if err := unix.Mkdir(dir, 0o755); err != nil {
		return -1, pathError("create", dir, err)
	}
	if err := unix.Mount("tmpfs", dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=0755,size=4k"); err != nil {
		return -1, pathError("mount", dir, err)
	}
	if err := attachFile(dir+"/"+standInName, worker); err != nil {
		return -1, err
	}
	return cloneTree(dir, true)
}

// enterOwnRoot makes the container's root file system the root, as for
// every native container, and makes the directory with the stand-in the working
// directory.
func (s *Sandbox) enterOwnRoot(k *kit) error {
	dir, err := s.standIn(k.worker)
	if err != nil {
		return err
	}
	defer unix.Close(dir)
	if err := pivot(s.base + rootfsPath); err != nil {
		return err
	}
	if err := unix.Fchdir(dir); err != nil {
		return fmt.Errorf("change to the stand-in's directory: %w", err)
	}
	return nil
}

// joinOwnRoot makes a directory with the worker the working directory of an exec beside a worker
// whose root is the container's. The directory is mounted nowhere in the end, as in a first launch.
// It is made on the root of a copy of the mount namespace, so it needs no mount point in the
// container: nothing can be attached below a mount that is itself detached.
func joinOwnRoot(k *kit) error {
	if err := copyMounts(); err != nil {
		return err
	}
	dir, err := newFilesystem("tmpfs", "tmpfs", mountOptions{
		set: unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV, data: []string{"mode=0755", "size=4k"},
	})
	if err != nil {
		return err
	}
	defer unix.Close(dir)
	if err := unix.MoveMount(dir, "", unix.AT_FDCWD, "/", unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return fmt.Errorf("attach the worker's directory: %w", err)
	}
	if err := unix.Fchdir(dir); err != nil {
		return fmt.Errorf("change to the worker's directory: %w", err)
	}
	if err := attachFile(standInName, k.worker); err != nil {
		return err
	}
	detached, err := cloneTree(".", true)
	if err != nil {
		return err
	}
	defer unix.Close(detached)
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return fmt.Errorf("detach the worker's directory: %w", err)
	}
	if err := unix.Fchdir(detached); err != nil {
		return fmt.Errorf("change to the worker's directory: %w", err)
	}
	return nil
}

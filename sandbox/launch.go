package sandbox

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/moby/sys/capability"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/wasmshim/containerd-shim-wasm/sandbox/seccomp"
)

// Launch describes the process to start in a sandbox.
type Launch struct {
	// Spec is the container's specification, Process the process to start: the
	// specification's own, or that of an exec.
	Spec    *specs.Spec
	Process *specs.Process
	// Worker is the program, Code (optional) the machine code it loads from
	// CodePath below its root. The worker is born with one more descriptor after
	// Files: that of the code, with a shared lock on it. A native worker whose file has
	// a mode without any right to read is not dumpable from its execve on: no process
	// without CAP_SYS_PTRACE gets at its memory and files.
	Worker, Code *os.File
	// Native starts the worker in the place of a native program: its root is the
	// container's root file system itself, and it is started from a directory
	// outside of that. It then changes to "/". A stand-in becomes a program of the container
	// by execve(2). Code and Reserved are not used then. An exec beside a worker is Native
	// if the worker is.
	Native bool
	// Argv and Env are those of the worker; Files become its descriptors from 0 on.
	Argv, Env []string
	Files     []*os.File
	// Terminal makes Files[0] the controlling terminal of a new session.
	Terminal bool
	// Reserved is a directory that only the worker may write, not the guest.
	Reserved Reserved
	// Fuse are further mounts, attached after everything else, createContainer hooks too.
	Fuse []Fuse
	// CreateContainer (optional) runs the createContainer hooks. It is called on the
	// sandbox's thread, before the container's root file system, which is at rootfs, becomes
	// the root. A process that is started there is in the container's namespaces, except the
	// pid namespace, and has the host's root. All of them must have ended when CreateContainer
	// returns: pivot_root(2) would give them the container's root.
	CreateContainer func(ctx context.Context, rootfs string) error
	// Limit (optional) puts the child with a pid under the container's limits. The child
	// executes the worker after that: from then on a neighbour may trace it (ptrace(2)),
	// and the processes that it forks inherit its limits.
	Limit func(pid int) error
}

// Paths in the root that a worker started by Launch sees.
const (
	// GuestRoot is the path of the container's root file system.
	GuestRoot = rootfsPath
	// CodePath is the path of the machine code of its module.
	CodePath = codePath
)

// Launch finishes the sandbox and forks the worker in it. The sandbox has ended when it
// returns. The caller waits for the child (wait(2)) and closes it. A child that
// has not executed the worker when ctx ends, or execLimit has passed, is killed.
func (s *Sandbox) Launch(ctx context.Context, l Launch) (Child, error) {
	child, err := s.fork(ctx, l)
	if err != nil {
		return Child{}, fmt.Errorf("launch: %w", err)
	}
	return child, nil
}

func (s *Sandbox) fork(ctx context.Context, l Launch) (Child, error) {
	defer s.Close()
	kit, err := s.gather(l)
	if err != nil {
		return Child{}, err
	}
	defer kit.close()
	var pid int
	err = s.thread.do(func() error {
		var err error
		pid, err = s.launch(ctx, l, kit)
		return err
	})
	if err != nil {
		return Child{}, err
	}
	child, err := childOf(pid)
	if err != nil {
		return Child{}, err
	}
	child.native, child.served = l.Native, s.served
	if !s.joined {
		child.home, err = homeOf(s.thread.id)
	}
	if err == nil {
		err = s.release(ctx, l, kit.birth, child)
	}
	if err != nil {
		child.discard()
		return Child{}, err
	}
	return child, nil
}

// execLimit bounds the time from the word to execve, which is less than a millisecond
// unless a process in the child's pid namespace stops it.
const execLimit = 10 * time.Second

// release lets a child that waits for the word execute the worker.
func (s *Sandbox) release(ctx context.Context, l Launch, b *birth, child Child) error {
	if l.Limit != nil {
		if err := l.Limit(child.PID); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithTimeout(ctx, execLimit)
	defer cancel()
	stop := context.AfterFunc(ctx, func() {
		_ = child.Signal(unix.SIGKILL) // fails only for one that has ended
	})
	err := s.thread.do(b.execute)
	if !stop() {
		return fmt.Errorf("the worker has not been executed in time (a process that shares its pid namespace may have stopped it): %w", ctx.Err())
	}
	return err
}

// kit holds everything that must be opened on the host while a thread still sees it: the
// sandbox's own thread may have another root already (Join).
type kit struct {
	worker, code int // detached mounts, -1 for none
	held         int // the code, open and locked; -1 for none
	filter       *seccomp.Filter
	label        label
	birth        *birth
}

func (s *Sandbox) gather(l Launch) (*kit, error) {
	k := &kit{worker: -1, code: -1, held: -1}
	err := k.fill(s.thread.id, l)
	if err != nil {
		k.close()
	}
	return k, err
}

func (k *kit) fill(tid int, l Launch) error {
	// Reads /proc, once for the life of the daemon.
	if _, err := capability.LastCap(); err != nil {
		return fmt.Errorf("read the last capability: %w", err)
	}
	var err error
	if l.Spec.Linux.Seccomp != nil {
		if k.filter, err = seccomp.Compile(l.Spec.Linux.Seccomp); err != nil {
			return err
		}
	}
	if k.label, err = openLabel(tid, l.Process); err != nil {
		return err
	}
	if k.birth, err = newBirth(l); err != nil {
		return fmt.Errorf("prepare the worker's start: %w", err)
	}
	if k.worker, err = cloneProgram(l.Worker); err != nil {
		return err
	}
	if k.code, err = cloneProgram(l.Code); err != nil || k.code < 0 {
		return err
	}
	k.held, err = holdCode(k.code)
	return err
}

func (k *kit) close() {
	k.label.close()
	for _, fd := range []int{k.worker, k.code, k.held} {
		if fd >= 0 {
			unix.Close(fd)
		}
	}
}

// launch runs on the sandbox's thread. The order matters:
//
//  1. namespaces before mounts: sysfs and mqueue show those of the mounter;
//  2. sysctls, in these namespaces, before the root changes: they need the host's
//     /proc;
//  3. mounts, devices, hidden paths, and only then the root turns read-only,
//     because mount points may have to be made in it; createContainer hooks come
//     between, and before the pid namespace (see enterNamespaces);
//  4. the root changes and the old one goes before privileges are given up:
//     pivot_root needs CAP_SYS_ADMIN;
//  5. the security label and a keyring of the child's own, then Landlock, which
//     forbids further mounts and needs a privilege or no_new_privs (see restrict);
//  6. the thread's descriptors, except those for the child: the profile need not
//     allow the calls;
//  7. credentials, then no_new_privs, then seccomp last, so that the profile
//     needs to allow only fork and exec. A profile without no_new_privs
//     needs CAP_SYS_ADMIN to be installed, so it comes before the credentials,
//     as in runc;
//  8. fork: the child inherits all of it, and no descriptor but its own. It waits
//     until release has limited it, and then executes the worker.
func (s *Sandbox) launch(ctx context.Context, l Launch, k *kit) (int, error) {
	if err := s.enterRoot(ctx, l, k); err != nil {
		return 0, err
	}
	if err := k.label.set(); err != nil {
		return 0, err
	}
	if err := ownKeyring(); err != nil {
		return 0, err
	}
	process, err := s.restrict(l)
	if err != nil {
		return 0, err
	}
	if err := k.bequeath(l.Files); err != nil {
		return 0, err
	}
	if err := confine(process, k.filter); err != nil {
		return 0, err
	}
	return k.birth.start()
}

// bequeath leaves the thread only the descriptors for the child. It comes before the
// seccomp profile, which need not allow the calls.
func (k *kit) bequeath(files []*os.File) error {
	if err := ownDescriptors(); err != nil {
		return err
	}
	fds := make([]int, 0, len(files)+1)
	for _, f := range files {
		fds = append(fds, int(f.Fd()))
	}
	if k.held >= 0 {
		fds = append(fds, k.held)
	}
	return k.birth.take(fds)
}

// holdCode opens the machine code and locks it, for the worker to inherit:
// while the worker, or a child of its own, has it open, the code is in use and package
// cache does not remove it. The worker cannot be relied on to take the
// lock itself; its seccomp profile need not allow fcntl(2). It is opened through the
// worker's own read-only mount, so that the descriptor gives no more rights than the
// path: it gives no exclusive lock (package filelock). The mount is not attached yet, so no
// path of a container is opened. The call does not block: the daemon holds the same lock, so
// there can be no conflicting one.
func holdCode(mount int) (int, error) {
	fd, err := unix.Open(fmt.Sprintf("%s/%d", ownFiles, mount), unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return -1, fmt.Errorf("open the machine code: %w", err)
	}
	if err := unix.FcntlFlock(uintptr(fd), unix.F_OFD_SETLK, &unix.Flock_t{Type: unix.F_RDLCK}); err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("lock the machine code: %w", err)
	}
	return fd, nil
}

// enterRoot completes the worker's root and makes it the root of the thread.
func (s *Sandbox) enterRoot(ctx context.Context, l Launch, k *kit) error {
	switch {
	case s.joined && l.Native:
		return joinOwnRoot(k)
	case s.joined:
		return attachCodeToCopy(k)
	}
	if err := s.buildRoot(ctx, l); err != nil {
		return err
	}
	if l.Native {
		return s.enterOwnRoot(k)
	}
	return s.enterWorkerRoot(k)
}

// enterWorkerRoot adds the files that only the worker sees and makes the whole root read-only.
func (s *Sandbox) enterWorkerRoot(k *kit) error {
	if err := attachFile(s.base+workerPath, k.worker); err != nil {
		return err
	}
	if err := attachFile(s.base+codePath, k.code); err != nil {
		return err
	}
	if err := remountReadonly(s.base); err != nil {
		return err
	}
	return pivot(s.base)
}

func (s *Sandbox) buildRoot(ctx context.Context, l Launch) error {
	if err := s.enter(l.Spec); err != nil {
		return err
	}
	if err := setHostname(l.Spec); err != nil {
		return err
	}
	if err := bringUpLoopback(l.Spec.Linux); err != nil {
		return err
	}
	if err := setSysctls(l.Spec.Linux); err != nil {
		return err
	}
	if err := s.fillRootfs(ctx, l); err != nil {
		return err
	}
	return enterPIDNamespace(l.Spec.Linux, s.pids)
}

// fillRootfs adds to the container's root file system everything that the specification
// asks for. It is a no-op for a sandbox without one (the preparer's).
func (s *Sandbox) fillRootfs(ctx context.Context, l Launch) error {
	if s.root < 0 {
		return nil
	}
	if !s.mounted {
		if err := mountAll(s.root, l.Spec); err != nil {
			return err
		}
	}
	if err := makeDevices(s.root, l.Spec); err != nil {
		return err
	}
	if err := s.runHooks(ctx, l); err != nil {
		return err
	}
	if err := s.reserve(l.Reserved, l.Process); err != nil {
		return err
	}
	if err := makeCwd(s.root, l.Process.Cwd); err != nil {
		return err
	}
	if err := hidePaths(s.root, l.Spec.Linux); err != nil {
		return err
	}
	// It comes after all that walks in the root, where a path may lead to a process that does not answer.
	if err := s.attachFuse(l.Fuse, l.Spec); err != nil {
		return err
	}
	if l.Spec.Root == nil || !l.Spec.Root.Readonly {
		return nil
	}
	return remountReadonly(s.base + rootfsPath)
}

func remountReadonly(path string) error {
	attr := &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}
	return pathError("make the root file system read-only", path, unix.MountSetattr(unix.AT_FDCWD, path, 0, attr))
}

// makeCwd creates the working directory if the image lacks it, as runc does.
func makeCwd(root int, cwd string) error {
	if cwd == "" {
		return nil
	}
	fd, err := mkdirAll(root, cwd)
	if errors.Is(err, unix.EROFS) {
		return nil // the worker reports it if the guest needs it
	}
	if err != nil {
		return fmt.Errorf("process.cwd: %w", err)
	}
	return unix.Close(fd)
}

// attachFile attaches a detached mount of a file at path, which it creates. It is a no-op
// for -1.
func attachFile(path string, mount int) error {
	if mount < 0 {
		return nil
	}
	if err := unix.Mknod(path, unix.S_IFREG|0o555, 0); err != nil {
		return pathError("create", path, err)
	}
	return attachAt(path, mount)
}

// attachCodeToCopy gives an exec its own code at the path where the
// container's worker has the container's code. The exec therefore sees a copy of the
// worker's mount namespace that differs in that one file only.
func attachCodeToCopy(k *kit) error {
	if err := copyMounts(); err != nil {
		return err
	}
	if k.code < 0 {
		return nil
	}
	// It replaces the container's own: nothing can be attached on top of a file that has
	// been removed meanwhile, and code is removed with its image.
	if err := unix.Unmount(codePath, unix.MNT_DETACH); err != nil {
		return pathError("unmount", codePath, err)
	}
	return attachAt(codePath, k.code)
}

// copyMounts gives the thread a copy of its mount namespace. Mounts in the copy are not seen outside of it.
func copyMounts() error {
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("copy mount namespace: %w", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SLAVE, ""); err != nil {
		return fmt.Errorf("set propagation of the copy: %w", err)
	}
	return nil
}

// pivot makes base the root and detaches the old one (pivot_root(2) describes
// the "." "." form: the old root is stacked on the new one and unmounted).
func pivot(base string) error {
	if err := unix.Chdir(base); err != nil {
		return pathError("change directory", base, err)
	}
	if err := unix.PivotRoot(".", "."); err != nil {
		return fmt.Errorf("pivot root: %w", err)
	}
	// The unmount of the old root must not propagate to its peers on the host.
	if err := unix.Mount("", ".", "", unix.MS_REC|unix.MS_SLAVE, ""); err != nil {
		return fmt.Errorf("set propagation of the old root: %w", err)
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return fmt.Errorf("detach the old root: %w", err)
	}
	return pathError("change directory", "/", unix.Chdir("/"))
}

// confine gives up the thread's privileges.
func confine(process *specs.Process, filter *seccomp.Filter) error {
	if process.User.Umask != nil {
		unix.Umask(int(*process.User.Umask))
	} else {
		unix.Umask(0o022)
	}
	if filter != nil && !process.NoNewPrivileges {
		if err := filter.Install(); err != nil {
			return err
		}
	}
	if err := setCredentials(process); err != nil {
		return err
	}
	if !process.NoNewPrivileges {
		return nil
	}
	if err := setNoNewPrivs(); err != nil {
		return err
	}
	if filter == nil {
		return nil
	}
	return filter.Install()
}

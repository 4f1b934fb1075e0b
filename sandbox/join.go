package sandbox

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Join prepares another process in the namespaces and on the root of a running worker, which
// Launch has started in a new sandbox.
func Join(worker Child) (*Sandbox, error) { return join(worker, 0) }

// JoinApart is like Join, but the process is born in a pid namespace of its own, beside the container's: no process there
// can see it, however the pod shares its processes, and its end is that of all processes that it has made.
func JoinApart(worker Child) (*Sandbox, error) { return join(worker, unix.CLONE_NEWPID) }

// join creates the namespaces of the flag apart, and joins the others.
func join(worker Child, apart int) (*Sandbox, error) {
	s := &Sandbox{thread: newThread(), root: -1, joined: true, served: worker.served}
	if err := s.join(worker, apart); err != nil {
		s.Close()
		return nil, fmt.Errorf("join sandbox: %w", err)
	}
	return s, nil
}

// join checks which mount namespace the thread is in before it opens any path there.
func (s *Sandbox) join(worker Child, apart int) error {
	if err := s.thread.do(func() error { return joinProcess(worker.Handle, apart) }); err != nil {
		return err
	}
	if err := worker.home.check(s.thread.id, apart); err != nil {
		return err
	}
	root := rootfsPath
	if worker.native {
		root = "/"
	}
	return s.thread.do(func() error { return s.openRoot(root) })
}

// joinProcess enters the namespaces of the worker with the given pidfd, all of them
// or none (setns(2), since Linux 5.8), and creates those of the flag apart instead.
func joinProcess(handle *os.File, apart int) error {
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return fmt.Errorf("unshare working directory: %w", err)
	}
	unix.Umask(0)
	flags := 0
	for _, ns := range shared {
		flags |= ns.flag &^ apart
	}
	err := withHandle(handle, func(fd int) error { return unix.Setns(fd, flags) })
	if errors.Is(err, unix.ESRCH) {
		return errors.New("join namespaces: the container has ended")
	}
	if err != nil {
		return fmt.Errorf("join namespaces: %w", err)
	}
	if apart == 0 {
		return nil
	}
	if err := unix.Unshare(apart); err != nil {
		return fmt.Errorf("create namespaces: %w", err)
	}
	return nil
}

// shared lists the namespaces that an exec shares with the container's worker. file is the name
// in /proc/PID/task/TID/ns (namespaces(7)): the pid namespace that counts is the one in which
// the thread's children are born.
var shared = []struct {
	kind, file string
	flag       int
}{
	{"mount", "mnt", unix.CLONE_NEWNS},
	{"pid", "pid_for_children", unix.CLONE_NEWPID},
	{"ipc", "ipc", unix.CLONE_NEWIPC},
	{"uts", "uts", unix.CLONE_NEWUTS},
	{"network", "net", unix.CLONE_NEWNET},
	{"cgroup", "cgroup", unix.CLONE_NEWCGROUP},
}

// home holds the namespaces that a worker was born in, in the order of shared. Native code that
// has taken the worker's place may create other namespaces, and in its own mount namespace it
// decides where each path leads. They are held open because the kernel reuses the number of a
// namespace that has gone.
type home []openNamespace

type openNamespace struct {
	file *os.File
	info os.FileInfo
}

// homeOf opens the namespaces of one of this process's threads.
func homeOf(thread int) (home, error) {
	var h home
	for _, ns := range shared {
		file, err := os.Open(namespaceOf(thread, ns.file))
		if err != nil {
			h.close()
			return nil, fmt.Errorf("note the worker's %s namespace: %w", ns.kind, err)
		}
		info, err := file.Stat()
		h = append(h, openNamespace{file, info})
		if err != nil {
			h.close()
			return nil, fmt.Errorf("note the worker's %s namespace: %w", ns.kind, err)
		}
	}
	return h, nil
}

// check returns an error unless one of this process's threads, which has joined the worker, is
// in the namespaces that the worker was born in, but for those of the flag apart.
func (h home) check(thread, apart int) error {
	if len(h) != len(shared) {
		return errors.New("it was not launched in a new sandbox")
	}
	for i, ns := range shared {
		if ns.flag == apart {
			continue
		}
		now, err := os.Stat(namespaceOf(thread, ns.file))
		if err != nil {
			return fmt.Errorf("check the worker's %s namespace: %w", ns.kind, err)
		}
		if !os.SameFile(now, h[i].info) {
			return fmt.Errorf("the container's process has left the %s namespace that it was started in, which no Wasm guest can do: it may have been taken over", ns.kind)
		}
	}
	return nil
}

func (h home) close() {
	for _, ns := range h {
		ns.file.Close()
	}
}

// namespaceOf is called on other threads than the given one, which may have another root.
func namespaceOf(thread int, file string) string {
	return fmt.Sprintf("/proc/self/task/%d/ns/%s", thread, file)
}

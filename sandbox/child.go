package sandbox

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Child is a started worker.
type Child struct {
	// PID is the worker's until it has been waited for (wait(2)).
	PID int
	// Handle is the worker's pidfd (pidfd_open(2)), in the Go runtime's poller. It never
	// refers to another process.
	Handle *os.File
	home   home     // none for an exec
	native bool     // its root is the container's (Launch.Native)
	served []served // artifacts that are mounted in its root
}

// Close closes the handle and the worker's namespaces. Until then the namespaces stay,
// with everything that is mounted there, even after the worker has ended.
func (c Child) Close() error {
	c.home.close()
	return c.Handle.Close()
}

// childOf returns the child with a pid, which has not been waited for.
func childOf(pid int) (Child, error) {
	fd, err := unix.PidfdOpen(pid, unix.PIDFD_NONBLOCK)
	if err != nil {
		discard(pid)
		return Child{}, fmt.Errorf("open a handle of process %d: %w", pid, err)
	}
	return Child{PID: pid, Handle: os.NewFile(uintptr(fd), "worker")}, nil
}

// discardLimit bounds the wait for a discarded child, in milliseconds. The child ends at once,
// unless it is traced or frozen.
const discardLimit = 1000

// discard ends a child that has not been returned to a caller, and waits until it has left its cgroup.
func (c Child) discard() {
	_ = c.Signal(unix.SIGKILL) // fails only for one that has ended
	_ = withHandle(c.Handle, func(fd int) error {
		_, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, discardLimit)
		return err
	})
	c.Close()
	discard(c.PID)
}

// discard ends a child without a handle. It does not wait for the end: a tracer of the
// child gets the exit first.
func discard(pid int) {
	unix.Kill(pid, unix.SIGKILL)
	go func() {
		for {
			if _, err := unix.Wait4(pid, nil, 0, nil); err != unix.EINTR {
				return
			}
		}
	}()
}

// Signal sends the worker a signal. It returns unix.ESRCH when the worker has been
// waited for or Handle is closed.
func (c Child) Signal(signal unix.Signal) error {
	return withHandle(c.Handle, func(fd int) error {
		return unix.PidfdSendSignal(fd, signal, nil, 0)
	})
}

// withHandle calls use with a pidfd, which stays open during the call. It returns unix.ESRCH
// if the pidfd is closed already: its process has been waited for.
func withHandle(handle *os.File, use func(fd int) error) error {
	conn, err := handle.SyscallConn()
	if err != nil {
		return unix.ESRCH
	}
	var used error
	if err := conn.Control(func(fd uintptr) { used = use(int(fd)) }); err != nil {
		return unix.ESRCH
	}
	return used
}

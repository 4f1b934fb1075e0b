package sandbox

import (
	"os"

	"golang.org/x/sys/unix"
)

// Child is a started worker.
type Child struct {
	// PID is the worker's until somebody has waited for it (wait(2)).
	PID int
	// Handle is the worker's pidfd (pidfd_open(2)), in the Go runtime's poller. It never
	// means another process. The caller closes it.
	Handle *os.File
}

// Signal sends the worker a signal. It returns unix.ESRCH when the worker has been
// waited for or Handle is closed.
func (c Child) Signal(signal unix.Signal) error {
	return withHandle(c.Handle, func(fd int) error {
		return unix.PidfdSendSignal(fd, signal, nil, 0)
	})
}

// withHandle calls use with a pidfd, which nobody closes meanwhile. It returns unix.ESRCH
// for one that is closed already: its process has been waited for.
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

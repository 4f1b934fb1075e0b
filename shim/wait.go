package shim

import (
	"crypto/rand"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/wasmshim/containerd-shim-wasm/sandbox"
)

// end is how a process ended.
type end struct {
	status int // exit code, or 128 + the signal that killed it
	at     time.Time
}

// killed is the status of a process that SIGKILL ended.
const killed = 128 + int(unix.SIGKILL)

// unknownEnd is the status of a process that has no worker to take one from, as containerd's
// client calls it (UnknownExitStatus).
const unknownEnd = 255

// child is a process that the daemon has launched. Its number is its own until it is reaped, which
// must happen once; who may come later uses the descriptor.
type child struct {
	pid int
	fd  *os.File // as of pidfd_open(2), in the poller
}

// launchChild is Sandbox.Launch.
func launchChild(sb *sandbox.Sandbox, l sandbox.Launch) (child, error) {
	launched, err := sb.Launch(l)
	if err != nil {
		return child{}, err
	}
	fd, err := unix.PidfdOpen(launched.PID, unix.PIDFD_NONBLOCK)
	if err != nil {
		unix.Kill(launched.PID, unix.SIGKILL)
		unix.Wait4(launched.PID, nil, 0, nil)
		return child{}, os.NewSyscallError("pidfd_open", err)
	}
	return child{launched.PID, os.NewFile(uintptr(fd), "pidfd")}, nil
}

// signal sends a signal. The error is ESRCH when the process has been reaped.
func (c child) signal(signal unix.Signal) error {
	return c.withFD(func(fd int) error { return unix.PidfdSendSignal(fd, signal, nil, 0) })
}

// awaitExit waits until the process has ended and returns when that was. It does not reap it.
func (c child) awaitExit() time.Time {
	conn, err := c.fd.SyscallConn()
	if err == nil {
		err = conn.Read(func(fd uintptr) bool { return hasExited(int(fd)) })
	}
	if err != nil {
		// Without the poller, wait in the call.
		_ = unix.Waitid(unix.P_PID, c.pid, nil, unix.WEXITED|unix.WNOWAIT, nil)
	}
	return time.Now()
}

func hasExited(pidfd int) bool {
	var info unix.Siginfo
	for {
		err := unix.Waitid(unix.P_PIDFD, pidfd, &info, unix.WEXITED|unix.WNOWAIT|unix.WNOHANG, nil)
		if err != unix.EINTR {
			return err != nil || info.Signo != 0
		}
	}
}

// reap collects a process that ended at a time. There is one reap for each child, so
// nobody steals anybody's exit status.
func (c child) reap(at time.Time) end {
	var status unix.WaitStatus
	for {
		if _, err := unix.Wait4(c.pid, &status, 0, nil); err != unix.EINTR {
			break
		}
	}
	if status.Signaled() {
		return end{status: 128 + int(status.Signal()), at: at}
	}
	return end{status: status.ExitStatus(), at: at}
}

func (c child) withFD(do func(fd int) error) error {
	conn, err := c.fd.SyscallConn()
	if err != nil {
		return syscall.ESRCH // closed
	}
	var failed error
	if err := conn.Control(func(fd uintptr) { failed = do(int(fd)) }); err != nil {
		return syscall.ESRCH
	}
	return failed
}

// randomID names something for as long as it lives.
func randomID() string { return rand.Text()[:12] }

package shim

import (
	"context"
	"crypto/rand"
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
// must happen once; who may come later uses the handle.
type child struct{ sandbox.Child }

// launchChild is Sandbox.Launch of a child that is reaped with reap.
func launchChild(ctx context.Context, sb *sandbox.Sandbox, l sandbox.Launch) (child, error) {
	var c child
	err := children.launch(func() (int, error) {
		var err error
		c.Child, err = sb.Launch(ctx, l)
		return c.PID, err
	})
	return c, err
}

// awaitExit waits until the process has ended and returns when that was. It does not reap it.
func (c child) awaitExit() time.Time {
	conn, err := c.Handle.SyscallConn()
	if err == nil {
		err = conn.Read(func(fd uintptr) bool { return hasExited(int(fd)) })
	}
	if err != nil {
		// Without the poller, wait in the call.
		_ = unix.Waitid(unix.P_PID, c.PID, nil, unix.WEXITED|unix.WNOWAIT, nil)
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
	defer children.forget(c.PID)
	var status unix.WaitStatus
	for {
		if _, err := unix.Wait4(c.PID, &status, 0, nil); err != unix.EINTR {
			break
		}
	}
	if status.Signaled() {
		return end{status: 128 + int(status.Signal()), at: at}
	}
	return end{status: status.ExitStatus(), at: at}
}

// randomID names something for as long as it lives.
func randomID() string { return rand.Text()[:12] }

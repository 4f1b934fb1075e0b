// Package children launches the daemon's children in their sandboxes and reaps them, each exactly
// once, and those that others have made children of the daemon.
//
// It starts nothing that package sandbox does not confine, and signals nobody.
package children

import (
	"context"
	"time"

	"golang.org/x/sys/unix"

	"github.com/wasmshim/containerd-shim-wasm/sandbox"
)

// End is how a process ended.
type End struct {
	Status int // exit code, or 128 + the signal that killed it
	At     time.Time
}

// Killed is the status of a process that SIGKILL ended.
const Killed = 128 + int(unix.SIGKILL)

// Child is a process that the daemon has launched. Its number is its own until it is reaped, which
// must happen once; a later user takes the handle.
type Child struct{ sandbox.Child }

// Launch is Sandbox.Launch of a child that is reaped with Reap.
func Launch(ctx context.Context, sb *sandbox.Sandbox, l sandbox.Launch) (Child, error) {
	var c Child
	err := own.launch(func() (int, error) {
		var err error
		c.Child, err = sb.Launch(ctx, l)
		return c.PID, err
	})
	return c, err
}

// AwaitExit waits until the process has ended and returns when that was. It does not reap it.
func (c Child) AwaitExit() time.Time {
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

// Reap collects a process that ended at a time. There is one Reap for each child, so
// nobody steals anybody's exit status.
func (c Child) Reap(at time.Time) End {
	defer own.forget(c.PID)
	var status unix.WaitStatus
	for {
		if _, err := unix.Wait4(c.PID, &status, 0, nil); err != unix.EINTR {
			break
		}
	}
	if status.Signaled() {
		return End{Status: 128 + int(status.Signal()), At: at}
	}
	return End{Status: status.ExitStatus(), At: at}
}

// Package children launches the daemon's children in their sandboxes and reaps each of them exactly
// once. It also reaps processes that others have made children of the daemon.
//
// It starts only processes that package sandbox confines, and sends no signal.
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

// Child is a process that the daemon has launched. The kernel does not reuse its pid before Reap, which
// must be called once. After that, use the handle.
type Child struct{ sandbox.Child }

// Launch calls Sandbox.Launch. Reap must be called for the child.
func Launch(ctx context.Context, sb *sandbox.Sandbox, l sandbox.Launch) (Child, error) {
	var c Child
	err := own.launch(func() (int, error) {
		var err error
		c.Child, err = sb.Launch(ctx, l)
		return c.PID, err
	})
	return c, err
}

// AwaitExit waits until the process has ended and returns the time of that. It does not reap the process.
func (c Child) AwaitExit() time.Time {
	conn, err := c.Handle.SyscallConn()
	if err == nil {
		err = conn.Read(func(fd uintptr) bool { return hasExited(int(fd)) })
	}
	if err != nil {
		// The runtime's poller is not available: wait in the system call.
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

// Reap reaps the process and returns its end, with at as the time. It reaps by pid, once for each
// child, so no exit status gets lost.
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

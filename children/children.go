// Package children launches the daemon's children in their sandboxes and reaps each of them exactly
// once. It also reaps processes that others have made children of the daemon.
//
// It starts only processes that package sandbox confines, and sends no signal.
package children

import (
	"context"
	"time"
	"unsafe"

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

// AwaitExit waits until the process has ended and returns how. It does not reap the process.
func (c Child) AwaitExit() End {
	var end exitInfo
	conn, err := c.Handle.SyscallConn()
	if err == nil {
		err = conn.Read(func(fd uintptr) bool { return end.look(unix.P_PIDFD, int(fd), unix.WNOHANG) })
	}
	if err != nil {
		// The runtime's poller is not available: wait in the system call.
		end.look(unix.P_PID, c.PID, 0)
	}
	return End{Status: end.exitStatus(), At: time.Now()}
}

// exitInfo is siginfo_t as waitid(2) fills it. unix.Siginfo has no names for these fields.
type exitInfo struct {
	signal, _, code, _ int32
	pid, _, status     int32
	_                  [100]byte
}

// look waits for a process without reaping it, and reports whether there is nothing more to wait for.
func (e *exitInfo) look(kind, id, options int) bool {
	for {
		err := unix.Waitid(kind, id, (*unix.Siginfo)(unsafe.Pointer(e)), unix.WEXITED|unix.WNOWAIT|options, nil)
		if err != unix.EINTR {
			return err != nil || e.signal != 0
		}
	}
}

// exited is the code of a process that has called exit(2): CLD_EXITED of waitid(2).
const exited = 1

func (e *exitInfo) exitStatus() int {
	if e.code == exited {
		return int(e.status)
	}
	return 128 + int(e.status)
}

// Reap reaps the process. It reaps by pid, once for each child.
func (c Child) Reap() {
	defer own.forget(c.PID)
	for {
		if _, err := unix.Wait4(c.PID, nil, 0, nil); err != unix.EINTR {
			return
		}
	}
}

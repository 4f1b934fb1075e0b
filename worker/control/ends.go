package control

import (
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/wasmshim/containerd-shim-wasm/internal/text"
)

// Daemon is the end of the process that starts a worker: the daemon, or a worker in Argo's emissary role that
// starts a guest's worker. The conversation is Run or Compile, Report, and for a guest Start. With a stand-in
// it is Start and AwaitExec.
type Daemon struct{ *os.File }

// Worker is the worker's end. The conversation is Run or Compile, Report, and for a guest AwaitStart.
type Worker struct{ *os.File }

// Pair returns both ends of a new conversation.
func Pair() (Daemon, Worker, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return Daemon{}, Worker{}, fmt.Errorf("create control socket: %w", err)
	}
	// Only the daemon's end waits in the Go runtime's poller.
	if err := syscall.SetNonblock(fds[0], true); err != nil {
		return Daemon{}, Worker{}, fmt.Errorf("create control socket: %w", err)
	}
	return Daemon{os.NewFile(uintptr(fds[0]), "control")}, Worker{os.NewFile(uintptr(fds[1]), "worker's control")}, nil
}

// Run orders a worker to load a module, and to run it after Start.
func (d Daemon) Run(order Run) error { return send(d, order, maxMessage) }

// Compile orders a worker to compile a module.
func (d Daemon) Compile(order Compile) error { return send(d, order, maxMessage) }

// Report returns the worker's answer to the order. The error is io.EOF if the worker has ended without one.
func (d Daemon) Report() (Report, error) { return next[Report](d, maxReport) }

// start is the byte that makes a prepared worker run its guest.
const start = 's'

// Start makes a worker that has reported run its guest.
func (d Daemon) Start() error {
	if _, err := d.Write([]byte{start}); err != nil {
		return fmt.Errorf("send start: %w", err)
	}
	return nil
}

// End tells the worker that no further message comes.
func (d Daemon) End() error {
	connection, err := d.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = connection.Control(func(fd uintptr) { failed = unix.Shutdown(int(fd), unix.SHUT_WR) })
	return errors.Join(err, failed)
}

// AwaitExec waits, after Start, until a stand-in has become its program, which closes its end of the socket.
// The error is a syscall.Errno if it could not. In that case the stand-in exits with an exit code of its own.
// AwaitExec waits for this exit, so that a signal of the caller does not replace the exit code.
func (d Daemon) AwaitExec() error { return awaitExec(d) }

func awaitExec(r io.Reader) error {
	var reason [1]byte
	_, err := io.ReadFull(r, reason[:])
	if errors.Is(err, io.EOF) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("await the program: %w", err)
	}
	_, _ = r.Read(make([]byte, 1)) // until the stand-in exits, which closes the socket, or the caller's deadline
	return syscall.Errno(reason[0])
}

// Own returns the end of the socket that this worker was started with.
func Own() Worker { return Worker{os.NewFile(descriptor, "control")} }

// Run returns the order to run a module.
func (w Worker) Run() (Run, error) { return next[Run](w, maxMessage) }

// Compile returns the order to compile a module.
func (w Worker) Compile() (Compile, error) { return next[Compile](w, maxMessage) }

// Report sends the answer to the order.
func (w Worker) Report(r Report) error {
	r.Error, r.Refusal = text.Short(r.Error, maxText), text.Short(r.Refusal, maxText)
	return send(w, r, maxReport)
}

// AwaitStart waits for the start byte. On an error the guest must not run.
func (w Worker) AwaitStart() error { return awaitStart(w) }

func awaitStart(r io.Reader) error {
	var b [1]byte
	if _, err := io.ReadFull(r, b[:]); err != nil {
		return fmt.Errorf("await start: %w", err)
	}
	if b[0] != start {
		return fmt.Errorf("await start: unexpected byte %#x", b[0])
	}
	return nil
}

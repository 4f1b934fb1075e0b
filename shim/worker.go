package shim

import (
	"context"
	"fmt"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/wasmshim/containerd-shim-wasm/children"
	"github.com/wasmshim/containerd-shim-wasm/sandbox"
	"github.com/wasmshim/containerd-shim-wasm/shim/stdio"
	"github.com/wasmshim/containerd-shim-wasm/worker/control"
)

// worker holds the resources of a launched process.
type worker struct {
	children.Child
	io      *stdio.Streams
	control control.Daemon

	isReady  chan struct{} // closed when it has reported, or never will
	readyErr error         // set before that
}

// launch starts the process's worker in its sandbox, under the container's limits, and sends it its order. No
// byte of the guest is loaded before that. The worker loads the module while launch returns.
func (p *process) launch(ctx context.Context, sb *sandbox.Sandbox, l sandbox.Launch) error {
	w, err := p.fork(ctx, sb, l)
	if err != nil {
		return err
	}
	if err := p.payload.order(w); err != nil {
		close(w.isReady)
		w.abort()
		return err
	}
	go func() {
		defer close(w.isReady)
		w.readyErr = p.payload.ready(w)
	}()
	return p.step(waiting, func() { p.worker = w })
}

func (p *process) fork(ctx context.Context, sb *sandbox.Sandbox, l sandbox.Launch) (_ *worker, err error) {
	c := p.container
	w := &worker{isReady: make(chan struct{})}
	if w.io, err = stdio.Open(ctx, p.streams, stdio.Owner{Namespace: c.daemon.flags.Namespace, ID: c.id}); err != nil {
		return nil, err
	}
	defer w.io.CloseChild()
	ours, theirs, err := control.Pair()
	if err != nil {
		w.io.Close()
		return nil, err
	}
	defer theirs.Close()
	w.control = ours
	if size := p.spec.ConsoleSize; size != nil && p.streams.Terminal {
		if err := w.io.Resize(uint32(size.Width), uint32(size.Height)); err != nil {
			c.daemon.log.WithError(err).WithField("container", c.id).Warn("set the terminal's first size (process.consoleSize): the guest sees none until it is resized")
		}
	}
	l.Argv, l.Env, l.Terminal = p.spec.Args, p.payload.env(), p.streams.Terminal
	l.Files = slices.Concat(w.io.Child(), []*os.File{theirs.File}, p.files)
	l.Limit = p.limit
	if w.Child, err = children.Launch(ctx, sb, l); err != nil {
		ours.Close()
		w.io.Close()
		return nil, err
	}
	return w, nil
}

// limit applies the limits that a process can only get once it exists.
func (p *process) limit(pid int) error {
	if err := p.container.cgroup.Add(pid); err != nil {
		return fmt.Errorf("add worker to cgroup: %w", err)
	}
	return sandbox.Limit(pid, p.spec)
}

// awaitReady waits until the worker can be started.
func (w *worker) awaitReady(ctx context.Context) error {
	select {
	case <-w.isReady:
		return w.readyErr
	case <-ctx.Done():
		return fmt.Errorf("the worker is not ready: %w", ctx.Err())
	}
}

// lastWords bounds how long after its end a worker's report may take to be read. A worker that has ended has
// closed its end of the socket; a child that still has it open must not delay us.
const lastWords = time.Second

// wait waits for the end of the worker, and for code that still sets it up. The worker is reaped only after that: the code
// acts on the worker and not on another process with its number.
func (w *worker) wait() children.End {
	end := w.AwaitExit()
	_ = w.control.SetReadDeadline(time.Now().Add(lastWords))
	<-w.isReady
	return end
}

// abortLimit bounds the wait for a killed worker: one that hangs in the kernel, or is in a frozen cgroup,
// does not end.
const abortLimit = 10 * time.Second

// abort kills a worker whose start or creation has not been published, and releases its resources.
func (w *worker) abort() {
	_ = w.Signal(unix.SIGKILL) // fails only for one that has ended
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		w.wait()
		w.Reap()
		w.hangUp()
		w.io.Close()
	}()
	select {
	case <-gone:
	case <-time.After(abortLimit):
	}
}

// hangUp closes the connection and the handle to a worker that has ended.
func (w *worker) hangUp() {
	w.control.Close()
	w.Close()
}

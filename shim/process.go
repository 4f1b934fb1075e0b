package shim

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/wasmshim/containerd-shim-wasm/children"
	"github.com/wasmshim/containerd-shim-wasm/sandbox"
	"github.com/wasmshim/containerd-shim-wasm/shim/stdio"
)

// process is the container's own process (id "") or an exec's.
type process struct {
	container *container
	id        string
	spec      *specs.Process
	payload   payload
	streams   stdio.Names
	files     []*os.File // further descriptors of the worker, after the control socket
	progress  *os.File   // of a program that serves artifacts (package progress), nil for another
	made      time.Time  // when that was made
	// connections are those of the artifacts that it serves.
	connections []*sandbox.Connection
	// apart tells that no process of the pod may see it (sandbox.JoinApart).
	apart bool

	mu      sync.Mutex
	phase   phase         // changed only by step
	changed chan struct{} // closed by the next step
	cancel  func()        // of an exec's launch, from launching on
	worker  *worker       // from waiting on
	begun   bool          // it has been running
	end     children.End  // from ended on
}

func newProcess(c *container, id string, first phase, spec *specs.Process, payload payload, s stdio.Names) *process {
	return &process{container: c, id: id, phase: first, spec: spec, payload: payload, streams: s, changed: make(chan struct{})}
}

// name is the id under which containerd knows the process.
func (p *process) name() string {
	if p.id == "" {
		return p.container.id
	}
	return p.id
}

// look returns the phase of the process, its worker, nil before it is launched, and its end, zero before it
// is known.
func (p *process) look() (phase, *worker, children.End) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.phase, p.worker, p.end
}

// pid returns the worker's process id, 0 before it is launched.
func (p *process) pid() int {
	if _, w, _ := p.look(); w != nil {
		return w.PID
	}
	return 0
}

// awaitBegun waits until the process runs and reports whether it ever did.
func (p *process) awaitBegun() bool {
	_ = p.await(context.Background(), func(f phase) bool { return f >= running })
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.begun
}

// startLimit bounds a start when its caller does not: a shim does not learn that a caller has gone. A worker
// takes milliseconds unless it is stopped or starved.
const startLimit = time.Minute

// start sends the worker the start message and returns when the payload runs. The caller publishes the start
// and takes the step to running.
func (p *process) start(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	phase, w, _ := p.look()
	if phase != waiting {
		return p.whyNot(ctx, phase, w)
	}
	if err := w.awaitReady(ctx); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("called off: %w", err)
	}
	if err := p.step(starting); err != nil {
		return err
	}
	err := w.control.Start()
	if err == nil {
		err = p.payload.started(ctx, w)
	}
	if err != nil {
		p.abandon()
		err = p.explainStart(err)
	}
	return err
}

// explainStart adds to the error of a start that the kernel has killed the worker for its memory.
func (p *process) explainStart(err error) error {
	if p.id != "" {
		return err // the kernel may have killed another process of the container before
	}
	if kills, _ := p.container.cgroup.OOMKills(); kills > 0 {
		return fmt.Errorf("out of memory: the container's limit is too low for the worker: %w", err)
	}
	return err
}

// whyNot returns the error for a start in a phase that allows none. If the worker has ended because it could
// not be started, the error has the reason.
func (p *process) whyNot(ctx context.Context, phase phase, w *worker) error {
	err := phase.illegal(starting)
	if phase != ended || w == nil {
		return err
	}
	if reason := w.awaitReady(ctx); reason != nil {
		return fmt.Errorf("%w: %w", err, reason)
	}
	return p.explainStart(err)
}

// abandon kills a worker whose start has not been published. The start cannot be published after that.
func (p *process) abandon() {
	if p.step(failed) == nil {
		_ = p.signal(unix.SIGKILL) // fails only for one that has ended
	}
}

// signalPatience is how long a signal waits for a worker that can act on it.
const signalPatience = 5 * time.Second

// callOff cancels a pending launch, even while a module is being compiled for it, and reports whether there
// was one. The process will not run.
func (p *process) callOff() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.phase != launching || p.cancel == nil {
		return false
	}
	p.cancel()
	return true
}

// awaitOver waits for the end of a process whose launch has been cancelled.
func (p *process) awaitOver(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, abortLimit)
	defer cancel()
	if err := p.await(ctx, phase.isOver); err != nil {
		return fmt.Errorf("call off the launch of a process: %w", err)
	}
	return nil
}

// kill sends a signal. If a worker turns the signal into an exit code, kill waits until the worker can:
// process 1 of a pid namespace loses signals it does not handle. It also waits for a pending launch, which is
// about to be a process; SIGKILL cancels the launch.
func (p *process) kill(ctx context.Context, signal unix.Signal) error {
	if signal == unix.SIGKILL && p.callOff() {
		return p.awaitOver(ctx)
	}
	if err := p.await(ctx, func(f phase) bool { return f != launching }); err != nil {
		return fmt.Errorf("send signal %d to a process that is being launched: %w", signal, err)
	}
	if phase, w, _ := p.look(); phase == waiting && isHandled(signal) {
		patience, cancel := context.WithTimeout(ctx, signalPatience)
		defer cancel()
		_ = w.awaitReady(patience) // it is sent in any case
	}
	return p.signal(signal)
}

// isHandled reports whether a process decides what a signal does to it.
func isHandled(signal unix.Signal) bool {
	return signal != unix.SIGKILL && signal != unix.SIGSTOP && signal != unix.SIGCONT
}

// signal sends a signal at once. Its errors have the kinds of the stock shim's.
func (p *process) signal(signal unix.Signal) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.phase < waiting:
		return fmt.Errorf("process not created: %w", errdefs.ErrFailedPrecondition)
	case p.phase.isOver():
		return fmt.Errorf("process already finished: %w", errdefs.ErrNotFound)
	}
	err := p.worker.Signal(signal)
	if errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("process already finished: %w", errdefs.ErrNotFound)
	}
	if err != nil {
		return fmt.Errorf("send signal %d to process %d: %w", signal, p.worker.PID, err)
	}
	return nil
}

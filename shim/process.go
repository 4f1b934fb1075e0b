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

	"github.com/wasmshim/containerd-shim-wasm/runtime/control"
	"github.com/wasmshim/containerd-shim-wasm/sandbox"
)

// process is one worker: the container's own (id "") or that of an exec.
type process struct {
	container *container
	id        string
	spec      *specs.Process
	command   command
	role      string
	streams   streams

	pid     int
	io      *stdio
	control *os.File
	reaped  <-chan end

	ready    chan struct{} // closed when the worker has reported
	readyErr error

	begun  chan struct{} // closed when it has been started
	exited chan struct{} // closed when its exit may be told
	end    end

	mu      sync.Mutex
	started bool
}

func newProcess(c *container, id string, spec *specs.Process, command command, s streams) *process {
	return &process{container: c, id: id, spec: spec, command: command, role: control.RoleRun, streams: s, ready: make(chan struct{}), begun: make(chan struct{}), exited: make(chan struct{})}
}

// workerEnv is the own environment of the process's worker; a guest's comes with
// its order. The worker allocates next to nothing once the guest runs, so
// collecting garbage would only cost threads and memory, and so would a heap of
// its own for each of its threads, which glibc would make. Components do their input
// and output with tokio, which starts a thread for each of the node's processors.
func (p *process) workerEnv() []string {
	if program := p.container.program; program != "" {
		return control.StandInEnv(program, p.spec.Env)
	}
	return []string{control.RoleEnv + "=" + p.role, "GOGC=off", "GOMAXPROCS=2", "GLIBC_TUNABLES=glibc.malloc.arena_max=1", "TOKIO_WORKER_THREADS=1"}
}

// launch starts the worker in its sandbox, puts it under the container's limits
// and gives it its order. The worker loads the module while we return.
func (p *process) launch(sb *sandbox.Sandbox, l sandbox.Launch) error {
	c := p.container
	var err error
	if p.io, err = openStdio(p.streams, c.node.flags.Namespace, c.id); err != nil {
		return err
	}
	ours, theirs, err := control.Pair()
	if err != nil {
		p.io.closeChild()
		p.io.close()
		return err
	}
	p.control = ours
	if size := p.spec.ConsoleSize; size != nil && p.streams.terminal {
		if err := p.io.resize(uint32(size.Width), uint32(size.Height)); err != nil {
			c.node.log.WithError(err).WithField("container", c.id).Warn("process.consoleSize")
		}
	}
	l.Argv, l.Env, l.Terminal = p.spec.Args, p.workerEnv(), p.streams.terminal
	l.Files = append(append([]*os.File(nil), p.io.child...), theirs)
	child, err := sb.Launch(l)
	theirs.Close()
	p.io.closeChild()
	if err != nil {
		p.control.Close()
		p.io.close()
		return err
	}
	p.pid, p.reaped = child.PID, wait(child.PID)
	if err := p.confine(); err != nil {
		p.abort()
		return err
	}
	go p.awaitReady()
	return nil
}

// confine applies what a process can only be given once it exists. No byte of
// the guest has been loaded: the worker waits for its order, which comes last.
func (p *process) confine() error {
	c := p.container
	if err := c.cgroup.Add(p.pid); err != nil {
		return fmt.Errorf("add worker to cgroup: %w", err)
	}
	if err := sandbox.Limit(p.pid, p.spec); err != nil {
		return err
	}
	if c.program != "" {
		return nil // a stand-in takes no order
	}
	return control.Send(p.control, c.order(p))
}

// abort kills a worker that nobody has been told of yet.
func (p *process) abort() {
	unix.Kill(p.pid, unix.SIGKILL)
	<-p.reaped
	p.control.Close()
	p.io.close()
}

func (p *process) awaitReady() {
	defer close(p.ready)
	if p.container.program != "" {
		return // nor does it report
	}
	// Beside the worker, which loads its module meanwhile.
	mountErr := p.mountCgroups()
	var report control.Report
	err := control.Receive(p.control, &report)
	switch {
	case err != nil:
		p.readyErr = fmt.Errorf("worker ended before it was ready: %w", err)
	case report.Error != "":
		p.readyErr = errors.New(report.Error)
	case mountErr != nil:
		p.readyErr = mountErr
	default:
		// Again: a Go program raises its limit of open files when it starts.
		p.readyErr = sandbox.Limit(p.pid, p.spec)
	}
}

// mountCgroups shows the guest its cgroup where the specification says so.
func (p *process) mountCgroups() error {
	if p.id != "" {
		return nil // an exec sees the container's
	}
	return sandbox.MountCgroups(p.pid, p.container.spec, p.container.cgroup.Paths())
}

// start lets the guest run.
func (p *process) start(ctx context.Context) error {
	select {
	case <-p.ready:
	case <-ctx.Done():
		return fmt.Errorf("start: %w", ctx.Err())
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ended() {
		return fmt.Errorf("cannot start a stopped process: %w", errdefs.ErrFailedPrecondition)
	}
	if p.started {
		return fmt.Errorf("cannot start a running process: %w", errdefs.ErrFailedPrecondition)
	}
	if p.readyErr != nil {
		return p.readyErr
	}
	if err := control.SendStart(p.control); err != nil {
		return err
	}
	if err := p.awaitProgram(ctx); err != nil {
		return err
	}
	p.started = true
	close(p.begun)
	return p.control.Close()
}

// awaitProgram returns when a stand-in has become its program.
func (p *process) awaitProgram(ctx context.Context) error {
	program := p.container.program
	if program == "" {
		return nil
	}
	stop := context.AfterFunc(ctx, func() { _ = p.control.SetReadDeadline(time.Now()) })
	defer stop()
	if err := control.AwaitExec(p.control); err != nil {
		return fmt.Errorf("execute %s: %w", program, err)
	}
	return nil
}

func (p *process) ended() bool {
	select {
	case <-p.exited:
		return true
	default:
		return false
	}
}

func (p *process) isRunning() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.started && !p.ended()
}

// kill sends a signal. One that a worker turns into an exit code waits until the
// worker can: process 1 of a pid namespace loses signals it does not handle.
func (p *process) kill(ctx context.Context, signal unix.Signal) error {
	if signal != unix.SIGKILL {
		select {
		case <-p.ready:
		case <-p.exited:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ended() || p.pid == 0 {
		return fmt.Errorf("process already finished: %w", errdefs.ErrNotFound)
	}
	err := unix.Kill(p.pid, signal)
	if errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("process already finished: %w", errdefs.ErrNotFound)
	}
	if err != nil {
		return fmt.Errorf("send signal %d to process %d: %w", signal, p.pid, err)
	}
	return nil
}

// drainLimit bounds the wait for a terminal's last output.
const drainLimit = 2 * time.Second

// drain waits until what the process wrote has been passed on.
func (p *process) drain() {
	ctx, cancel := context.WithTimeout(context.Background(), drainLimit)
	defer cancel()
	p.io.drain(ctx)
}

// finish records how the process ended.
func (p *process) finish(e end) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.end = e
	p.control.Close()
	close(p.exited)
}

// await waits for the end of the process.
func (p *process) await(ctx context.Context) error {
	select {
	case <-p.exited:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

package shim

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	eventsapi "github.com/containerd/containerd/api/events"
	tasks "github.com/containerd/containerd/api/runtime/task/v2"
	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/wasmshim/containerd-shim-wasm/children"
	"github.com/wasmshim/containerd-shim-wasm/module"
	"github.com/wasmshim/containerd-shim-wasm/sandbox"
	"github.com/wasmshim/containerd-shim-wasm/shim/stdio"
)

// Exec records a further process; Start starts it.
func (c *container) Exec(_ context.Context, r *tasks.ExecProcessRequest) (*emptypb.Empty, error) {
	var spec specs.Process
	if err := decodeStrict(r.Spec.GetValue(), &spec); err != nil {
		return nil, fmt.Errorf("exec %s: %w", r.ExecID, err)
	}
	if err := sandbox.CheckProcess(&spec); err != nil {
		return nil, fmt.Errorf("exec %s: %w", r.ExecID, err)
	}
	spec.Terminal = r.Terminal
	// CRI gives an exec the container's variables.
	spec.Env = withoutVariables(spec.Env, c.requested.withheld())
	payload, err := c.init.payload.exec(&spec)
	if err != nil {
		return nil, fmt.Errorf("exec %s: %w", r.ExecID, err)
	}
	p := newProcess(c, r.ExecID, added, &spec, payload, stdio.Names{Stdin: r.Stdin, Stdout: r.Stdout, Stderr: r.Stderr, Terminal: r.Terminal})
	if err := c.addExec(p); err != nil {
		return nil, fmt.Errorf("exec %s in container %s: %w", r.ExecID, c.id, err)
	}
	return empty, nil
}

func (c *container) addExec(p *process) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.init.now() != running {
		return fmt.Errorf("its process is not running: %w", errdefs.ErrFailedPrecondition)
	}
	if err := c.closed(); err != nil {
		return err
	}
	if _, ok := c.execs[p.id]; ok {
		return errdefs.ErrAlreadyExists
	}
	c.execs[p.id] = p
	c.events.send(&eventsapi.TaskExecAdded{ContainerID: c.id, ExecID: p.id})
	return nil
}

// startExec launches an exec beside the container's worker and lets it run. A failed exec is over: it can
// only be deleted, not started again.
func (c *container) startExec(ctx context.Context, p *process) error {
	// A shim does not learn that a caller without a deadline has gone. A kill or a deletion cancels the
	// launch instead.
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if err := p.step(launching, func() { p.cancel = cancel }); err != nil {
		return err
	}
	if err := c.launchExec(ctx, p); err != nil {
		return errors.Join(err, p.step(ended, func() { p.end = children.End{Status: unknownEnd, At: time.Now()} }))
	}
	defer c.settle()
	go p.watch()
	err := p.start(ctx)
	if err == nil {
		err = c.tellExec(p)
	}
	if err != nil {
		c.abandonExec(p)
	}
	return err
}

// tellExec publishes that an exec runs, unless the container's own process has ended meanwhile.
func (c *container) tellExec(p *process) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.over {
		return fmt.Errorf("the container's process has ended: %w", errdefs.ErrFailedPrecondition)
	}
	if err := p.step(running); err != nil {
		return err
	}
	c.events.send(&eventsapi.TaskExecStarted{ContainerID: c.id, ExecID: p.id, Pid: uint32(p.pid())})
	return nil
}

// unknownEnd is the exit status of a process without a worker, as in containerd's client (UnknownExitStatus).
const unknownEnd = 255

// abandonExec kills an exec whose start has failed, and waits a limited time for its end: the caller will
// delete it.
func (c *container) abandonExec(p *process) {
	p.abandon()
	ctx, cancel := context.WithTimeout(context.Background(), abortLimit)
	defer cancel()
	if err := p.await(ctx, phase.isOver); err != nil {
		c.daemon.log.WithError(err).WithField("container", c.id).WithField("exec", p.id).Warn("kill an exec that could not be started")
	}
}

// launchExec launches the exec's worker in the container. The container then counts the exec as starting.
func (c *container) launchExec(ctx context.Context, p *process) error {
	if err := c.open(); err != nil {
		return err
	}
	_, w, _ := c.init.look()
	join := sandbox.Join
	if p.apart {
		join = sandbox.JoinApart
	}
	sb, err := join(w.Child.Child)
	if err != nil {
		return err
	}
	defer sb.Close()
	launch, release, err := c.prepareExec(ctx, sb, p)
	if err != nil {
		return err
	}
	defer release()
	if err := c.admit(); err != nil {
		return err
	}
	if err := p.launch(ctx, sb, launch); err != nil {
		c.settle()
		c.leave()
		return err
	}
	return nil
}

// prepareExec returns the launch for an exec. It compiles a module that is not in the cache. The caller calls
// release after the launch.
func (c *container) prepareExec(ctx context.Context, sb *sandbox.Sandbox, p *process) (_ sandbox.Launch, release func(), err error) {
	launch := sandbox.Launch{Spec: c.spec, Process: p.spec}
	if launch.Worker, launch.Native, err = p.payload.program(c.daemon); err != nil {
		return launch, nil, err
	}
	command, ok := p.payload.module()
	if !ok {
		return launch, func() {}, nil
	}
	from, err := c.modules.Open(ctx, sb, p.spec, command.point())
	if err != nil {
		return launch, nil, explainExec(p.spec.Args[0], err)
	}
	defer from.Close()
	code, err := c.modules.Load(ctx, module.Request{Source: from, Settings: c.settings, Payer: c.account()})
	if err != nil {
		return launch, nil, err
	}
	launch.Code = code.File
	return launch, func() { code.Close() }, nil
}

// explainExec adds to an error for a native program what a Wasm container can run.
func explainExec(name string, err error) error {
	if !isNative(err) || errors.Is(err, os.ErrNotExist) {
		return err
	}
	return fmt.Errorf("%s is a native program; a Wasm container runs only WebAssembly modules: name a .wasm file of the container: %w", name, errdefs.ErrFailedPrecondition)
}

// deleteExec deletes an exec. It cancels a pending launch.
func (c *container) deleteExec(ctx context.Context, p *process) (*tasks.DeleteResponse, error) {
	if p.callOff() {
		if err := p.awaitOver(ctx); err != nil {
			return nil, fmt.Errorf("exec %s of container %s: %w", p.id, c.id, err)
		}
	}
	if err := p.step(deleting); err != nil {
		return nil, fmt.Errorf("exec %s of container %s: %w", p.id, c.id, err)
	}
	if _, w, _ := p.look(); w != nil {
		w.io.Close()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.execs, p.id)
	return deleted(p), nil
}

package shim

import (
	"context"
	"errors"
	"fmt"
	"os"

	eventsapi "github.com/containerd/containerd/api/events"
	tasks "github.com/containerd/containerd/api/runtime/task/v2"
	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/wasmshim/containerd-shim-wasm/argo"
	"github.com/wasmshim/containerd-shim-wasm/runtime/control"
	"github.com/wasmshim/containerd-shim-wasm/sandbox"
)

// Exec takes note of a further process; Start starts it.
func (c *container) Exec(_ context.Context, r *tasks.ExecProcessRequest) (*emptypb.Empty, error) {
	if c.program != "" {
		return nil, fmt.Errorf("exec %s: a pod's pause container runs nothing beside its own program; exec in another container of the pod: %w", r.ExecID, errdefs.ErrNotImplemented)
	}
	var spec specs.Process
	if err := decodeStrict(r.Spec.GetValue(), &spec); err != nil {
		return nil, fmt.Errorf("exec %s: %w", r.ExecID, err)
	}
	if err := sandbox.CheckProcess(&spec); err != nil {
		return nil, fmt.Errorf("exec %s: %w", r.ExecID, err)
	}
	spec.Terminal = r.Terminal
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.init.isRunning() {
		return nil, fmt.Errorf("cannot exec in container %s: it is not running: %w", c.id, errdefs.ErrFailedPrecondition)
	}
	if c.paused {
		return nil, fmt.Errorf("cannot exec in a paused container: %s: %w", c.id, errdefs.ErrFailedPrecondition)
	}
	if _, ok := c.execs[r.ExecID]; ok {
		return nil, fmt.Errorf("exec %s of container %s: %w", r.ExecID, c.id, errdefs.ErrAlreadyExists)
	}
	c.execs[r.ExecID] = newProcess(c, r.ExecID, &spec, command{guest: spec.Args}, streams{stdin: r.Stdin, stdout: r.Stdout, stderr: r.Stderr, terminal: r.Terminal})
	c.events.send(&eventsapi.TaskExecAdded{ContainerID: c.id, ExecID: r.ExecID})
	return empty, nil
}

// startExec launches an exec beside the container's worker and lets it run.
func (c *container) startExec(ctx context.Context, execID string) (*tasks.StartResponse, error) {
	p, err := c.process(execID)
	if err != nil {
		return nil, err
	}
	if p.pid != 0 {
		return nil, fmt.Errorf("cannot start a running process: exec %s: %w", execID, errdefs.ErrFailedPrecondition)
	}
	if err := c.launchExec(ctx, p); err != nil {
		return nil, fmt.Errorf("exec %s in container %s: %w", execID, c.id, err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := p.start(ctx); err != nil {
		p.abort()
		return nil, fmt.Errorf("exec %s in container %s: %w", execID, c.id, err)
	}
	c.alive.Add(1)
	go p.watch()
	c.events.send(&eventsapi.TaskExecStarted{ContainerID: c.id, ExecID: execID, Pid: uint32(p.pid)})
	return &tasks.StartResponse{Pid: uint32(p.pid)}, nil
}

func (c *container) launchExec(ctx context.Context, p *process) error {
	if c.init.ended() {
		return fmt.Errorf("its process has ended: %w", errdefs.ErrFailedPrecondition)
	}
	sb, err := sandbox.Join(c.init.pid)
	if err != nil {
		return err
	}
	defer sb.Close()
	engine, err := c.node.prepareEngine()
	if err != nil {
		return err
	}
	launch := sandbox.Launch{Spec: c.spec, Process: p.spec, Worker: engine.worker}
	if _, ok, err := argo.ParseKill(p.spec.Args); err != nil {
		return err
	} else if ok {
		p.role = control.RoleKill
		return p.launch(sb, launch)
	}
	module, err := c.openModule(ctx, sb, p.spec, p.command.entry())
	if err != nil {
		return explainExec(p.spec.Args[0], err)
	}
	defer module.close()
	compiled, err := c.compile(ctx, p.command, module, func(string) {})
	if err != nil {
		return err
	}
	defer compiled.Close()
	launch.Module = compiled.Code
	return p.launch(sb, launch)
}

// explainExec says what a Wasm container can run.
func explainExec(name string, err error) error {
	if !errors.Is(err, errNative) || errors.Is(err, os.ErrNotExist) {
		return err
	}
	return fmt.Errorf("%s is a native program; a Wasm container runs only WebAssembly modules: name a .wasm file of the container: %w", name, errdefs.ErrFailedPrecondition)
}

func (c *container) deleteExec(p *process) (*tasks.DeleteResponse, error) {
	if p.pid != 0 && !p.ended() {
		return nil, fmt.Errorf("cannot delete a running process: exec %s", p.id)
	}
	if p.io != nil {
		p.io.close()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.execs, p.id)
	return deleted(p), nil
}

// watch waits for the end of the process and tells it. The container's own exit
// is told last, after those of its execs.
func (p *process) watch() {
	c := p.container
	e := <-p.reaped
	if p.id == "" {
		c.killRest()
		c.alive.Wait()
	} else {
		defer c.alive.Done()
	}
	p.drain()
	if p.id == "" {
		if err := c.command.leaveExitCode(c.spec, e.status); err != nil {
			c.node.log.WithError(err).WithField("container", c.id).Warn("its workflow may wait for this container")
		}
	}
	// Whoever sees that the process has ended (Delete) waits for this lock, so
	// nothing overtakes the news of it.
	c.mu.Lock()
	defer c.mu.Unlock()
	p.finish(e)
	c.tellOOM(e)
	if p.id == "" {
		c.recordExit(e)
	}
	c.events.send(&eventsapi.TaskExit{
		ContainerID: c.id, ID: p.name(), Pid: uint32(p.pid), ExitStatus: uint32(e.status), ExitedAt: timestamppb.New(e.at),
	})
}

// killRest ends the execs of a container whose own process has ended. In a pid
// namespace of its own the kernel has done so already (pid_namespaces(7)); in a
// shared one nobody has.
func (c *container) killRest() {
	if sandbox.CreatesNamespace(c.spec.Linux, specs.PIDNamespace) {
		return
	}
	if err := c.cgroup.Kill(); err != nil {
		c.node.log.WithError(err).WithField("container", c.id).Warn("kill what is left in the container")
	}
}

// name is the id under which containerd knows the process.
func (p *process) name() string {
	if p.id == "" {
		return p.container.id
	}
	return p.id
}

// tellOOM tells that the kernel killed for memory. Every process of the
// container is one whose end we see, or the child of one (Argo's) that ends with
// the exit code of a killed program, so looking then misses nothing.
func (c *container) tellOOM(e end) {
	if e.status != killed {
		return
	}
	kills, err := c.cgroup.OOMKills()
	if err != nil {
		c.node.log.WithError(err).WithField("container", c.id).Warn("read OOM kills")
		return
	}
	if kills > c.ooms {
		c.ooms = kills
		c.events.send(&eventsapi.TaskOOM{ContainerID: c.id})
	}
}

package shim

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	eventsapi "github.com/containerd/containerd/api/events"
	tasks "github.com/containerd/containerd/api/runtime/task/v2"
	"github.com/containerd/containerd/api/types/runc/options"
	tasktypes "github.com/containerd/containerd/api/types/task"
	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/wasmshim/containerd-shim-wasm/config"
	"github.com/wasmshim/containerd-shim-wasm/module"
	"github.com/wasmshim/containerd-shim-wasm/sandbox"
	"github.com/wasmshim/containerd-shim-wasm/sandbox/cgroup"
)

// container is a Wasm container, or a pod's pause container that we launched. It
// answers the task API for its own id.
type container struct {
	daemon *daemon
	events *events
	id     string
	bundle string
	spec   *specs.Spec
	rootfs []sandbox.Mount
	stderr string // its own stream, as containerd names it
	// command is the command of the container's own process, if it is Wasm.
	command command
	// settings were read when the container was created.
	settings config.Config
	// systemd reports whether systemd makes the cgroup.
	systemd bool
	cgroup  *cgroup.Cgroup
	init    *process
	// modules opens and compiles the modules of a Wasm container.
	modules *module.Container
	// served is the exec, in another container of the pod, that serves this container's artifacts.
	served atomic.Pointer[process]
	// requested serves the artifacts that the pod asks for by annotation, nil for none.
	requested *requested
	gone      chan struct{} // closed when nothing is left of the container's own process

	// mu orders the container's events: no exit comes before its start. No code waits for a worker while it
	// holds mu.
	mu       sync.Mutex
	execs    map[string]*process
	ooms     uint64
	freezing freezing
	callOff  func()        // cancels a pending pause
	killed   bool          // it can no longer be paused: SIGKILL is on its way to its own process
	over     bool          // no more execs are launched: its own process has ended
	starting int           // execs that are being launched and started
	inside   int           // execs that have a worker
	counted  chan struct{} // closed when starting or inside decreases
}

// process returns the container's worker for "" or that of an exec.
func (c *container) process(execID string) (*process, error) {
	if execID == "" {
		return c.init, nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	p, ok := c.execs[execID]
	if !ok {
		return nil, fmt.Errorf("exec %s of container %s does not exist: %w", execID, c.id, errdefs.ErrNotFound)
	}
	return p, nil
}

// State returns the state of a process.
func (c *container) State(_ context.Context, r *tasks.StateRequest) (*tasks.StateResponse, error) {
	p, err := c.process(r.ExecID)
	if err != nil {
		return nil, err
	}
	phase, w, e := p.look()
	response := &tasks.StateResponse{
		ID: c.id, ExecID: r.ExecID, Bundle: c.bundle, Status: c.status(phase),
		Stdin: p.streams.Stdin, Stdout: p.streams.Stdout, Stderr: p.streams.Stderr, Terminal: p.streams.Terminal,
	}
	if r.ExecID != "" {
		response.ID = r.ExecID
	}
	if w != nil {
		response.Pid = uint32(w.PID)
	}
	if phase.isOver() {
		response.ExitStatus, response.ExitedAt = uint32(e.Status), timestamppb.New(e.At)
	}
	return response, nil
}

func (c *container) status(phase phase) tasktypes.Status {
	switch {
	case phase.isOver():
		return tasktypes.Status_STOPPED
	case phase != running:
		return tasktypes.Status_CREATED
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	switch c.freezing {
	case pausing:
		return tasktypes.Status_PAUSING
	case paused:
		return tasktypes.Status_PAUSED
	}
	return tasktypes.Status_RUNNING
}

// Create fails: the service creates containers.
func (c *container) Create(context.Context, *tasks.CreateTaskRequest) (*tasks.CreateTaskResponse, error) {
	return nil, fmt.Errorf("container %s: %w", c.id, errdefs.ErrAlreadyExists)
}

// Start lets the container's guest run, or starts an exec.
func (c *container) Start(ctx context.Context, r *tasks.StartRequest) (*tasks.StartResponse, error) {
	p, err := c.process(r.ExecID)
	if err != nil {
		return nil, err
	}
	if r.ExecID != "" {
		if err := c.startExec(ctx, p); err != nil {
			return nil, fmt.Errorf("exec %s in container %s: %w", r.ExecID, c.id, err)
		}
	} else if err := c.startInit(ctx); err != nil {
		return nil, fmt.Errorf("start container %s: %w", c.id, err)
	}
	return &tasks.StartResponse{Pid: uint32(p.pid())}, nil
}

func (c *container) startInit(ctx context.Context) error {
	if err := c.init.start(ctx); err != nil {
		return err
	}
	if err := c.tellStart(); err != nil {
		return err
	}
	return c.poststart(ctx)
}

func (c *container) tellStart() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.init.step(running); err != nil {
		return err
	}
	c.events.send(&eventsapi.TaskStart{ContainerID: c.id, Pid: uint32(c.init.pid())})
	return nil
}

// Delete releases the resources of a stopped process or container. As from the stock shim, a container that
// has not been started need not be stopped first.
func (c *container) Delete(ctx context.Context, r *tasks.DeleteRequest) (*tasks.DeleteResponse, error) {
	p, err := c.process(r.ExecID)
	if err != nil {
		return nil, err
	}
	if r.ExecID != "" {
		return c.deleteExec(ctx, p)
	}
	if err := c.endUnstarted(ctx); err != nil {
		return nil, fmt.Errorf("end the process of container %s: %w", c.id, err)
	}
	// A later start of the container must be of the image that this task was made of.
	c.modules.AwaitNote(ctx)
	if err := p.step(deleting); err != nil {
		return nil, fmt.Errorf("container %s: %w", c.id, err)
	}
	<-c.gone // within abortLimit
	if err := c.cgroup.Destroy(); err != nil {
		return nil, errors.Join(fmt.Errorf("remove cgroup of container %s: %w", c.id, err), p.step(ended))
	}
	_, w, e := p.look()
	w.io.Close()
	// Run the hooks before the state is removed: if the daemon dies meanwhile, the delete verb runs them
	// again. Run them also for a caller that has given up, because no caller asks twice.
	c.daemon.poststop(context.WithoutCancel(ctx), c.id, c.bundle, c.spec)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.removeState()
	c.events.send(&eventsapi.TaskDelete{
		ContainerID: c.id, Pid: uint32(w.PID), ExitStatus: uint32(e.Status), ExitedAt: timestamppb.New(e.At),
	})
	return deleted(p), nil
}

// endUnstarted ends a process that has been created and not started.
func (c *container) endUnstarted(ctx context.Context) error {
	c.init.abandon()
	if c.init.now() != failed {
		return nil
	}
	if err := c.thaw(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, abortLimit)
	defer cancel()
	return c.init.await(ctx, phase.isOver)
}

func deleted(p *process) *tasks.DeleteResponse {
	_, w, e := p.look()
	response := &tasks.DeleteResponse{ExitStatus: uint32(e.Status), ExitedAt: timestamppb.New(e.At)}
	if w != nil {
		response.Pid = uint32(w.PID)
	}
	return response
}

// Pids lists the processes in the container's cgroup, or the one it had.
func (c *container) Pids(context.Context, *tasks.PidsRequest) (*tasks.PidsResponse, error) {
	pids, err := c.cgroup.Pids()
	if err != nil {
		return nil, fmt.Errorf("list processes of container %s: %w", c.id, err)
	}
	if c.init.now().isOver() || len(pids) == 0 {
		// An ended container stays listed, like a zombie, until it is deleted. This includes the time in
		// which the process has ended and we have not seen it yet; the cgroup is empty then. A restarted
		// containerd that gets no process takes the task for one never created, removes it, and loses the
		// exit code (loadShim in core/runtime/v2/shim_load.go).
		pids = []int{c.init.pid()}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	response := &tasks.PidsResponse{}
	for _, pid := range pids {
		info := &tasktypes.ProcessInfo{Pid: uint32(pid)}
		for id, p := range c.execs {
			if phase, w, _ := p.look(); phase == running && w.PID == pid {
				info.Info, err = wrap(&options.ProcessDetails{ExecID: id})
			}
		}
		response.Processes = append(response.Processes, info)
	}
	return response, err
}

// wrap is typeurl.MarshalAny for a message that is registered under its
// protobuf name.
func wrap(m proto.Message) (*anypb.Any, error) {
	value, err := proto.Marshal(m)
	if err != nil {
		return nil, err
	}
	return &anypb.Any{TypeUrl: string(m.ProtoReflect().Descriptor().FullName()), Value: value}, nil
}

// Checkpoint fails: Wasm containers have no checkpoints yet.
func (c *container) Checkpoint(context.Context, *tasks.CheckpointTaskRequest) (*emptypb.Empty, error) {
	return nil, fmt.Errorf("checkpoint of a Wasm container: %w", errdefs.ErrNotImplemented)
}

// Kill signals a process or, with All, every process of the container.
func (c *container) Kill(ctx context.Context, r *tasks.KillRequest) (*emptypb.Empty, error) {
	p, err := c.process(r.ExecID)
	if err != nil {
		return nil, err
	}
	signal := unix.Signal(r.Signal)
	ends := signal == unix.SIGKILL && r.ExecID == ""
	if ends {
		c.forbidPause()
	}
	err = p.kill(ctx, signal)
	if ends {
		c.hangUpArtifacts() // after the signal: its process must not see the end of a read
	}
	if err != nil {
		return nil, err
	}
	if r.All && r.ExecID == "" {
		c.signalExecs(ctx, signal)
	}
	if ends {
		return empty, c.thaw()
	}
	return empty, nil
}

func (c *container) signalExecs(ctx context.Context, signal unix.Signal) {
	for _, p := range c.runningExecs() {
		if err := p.kill(ctx, signal); err != nil && !errors.Is(err, errdefs.ErrNotFound) {
			c.daemon.log.WithError(err).WithField("container", c.id).Warn("send a signal to an exec: it may go on")
		}
	}
}

func (c *container) runningExecs() []*process {
	c.mu.Lock()
	defer c.mu.Unlock()
	var execs []*process
	for _, p := range c.execs {
		if p.now() == running {
			execs = append(execs, p)
		}
	}
	return execs
}

// ResizePty sets the size of a process's terminal.
func (c *container) ResizePty(_ context.Context, r *tasks.ResizePtyRequest) (*emptypb.Empty, error) {
	p, err := c.process(r.ExecID)
	if err != nil {
		return nil, err
	}
	_, w, _ := p.look()
	if w == nil {
		return empty, nil
	}
	return empty, w.io.Resize(r.Width, r.Height)
}

// CloseIO closes a process's standard input.
func (c *container) CloseIO(_ context.Context, r *tasks.CloseIORequest) (*emptypb.Empty, error) {
	p, err := c.process(r.ExecID)
	if err != nil {
		return nil, err
	}
	if _, w, _ := p.look(); r.Stdin && w != nil {
		w.io.CloseStdin()
	}
	return empty, nil
}

// Wait waits for the end of a process.
func (c *container) Wait(ctx context.Context, r *tasks.WaitRequest) (*tasks.WaitResponse, error) {
	p, err := c.process(r.ExecID)
	if err != nil {
		return nil, err
	}
	if err := p.await(ctx, phase.isOver); err != nil {
		return nil, err
	}
	_, _, e := p.look()
	return &tasks.WaitResponse{ExitStatus: uint32(e.Status), ExitedAt: timestamppb.New(e.At)}, nil
}

// Connect returns the process id of the container's worker.
func (c *container) Connect(context.Context, *tasks.ConnectRequest) (*tasks.ConnectResponse, error) {
	return &tasks.ConnectResponse{TaskPid: uint32(c.init.pid())}, nil
}

// Shutdown is a no-op: the service implements it.
func (c *container) Shutdown(context.Context, *tasks.ShutdownRequest) (*emptypb.Empty, error) {
	return empty, nil
}

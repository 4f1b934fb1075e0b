package shim

import (
	"context"
	"errors"
	"fmt"
	"sync"

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

	"github.com/wasmshim/containerd-shim-wasm/sandbox"
	"github.com/wasmshim/containerd-shim-wasm/sandbox/cgroup"
)

// container is a Wasm container, or a pod's pause container that we launched. It
// answers the task API for its own id.
type container struct {
	node   *node
	events *events
	id     string
	bundle string
	spec   *specs.Spec
	rootfs []sandbox.Mount // of a Wasm container
	// command is what the process of a Wasm container is to run.
	command command
	// program is the path of a pause container's native program, else empty.
	program string
	// settings were read when the container was created.
	settings settings
	// systemd says who makes the cgroup.
	systemd bool
	cgroup  *cgroup.Cgroup
	init    *process

	// mu orders what is told of the container: no exit before its start.
	mu     sync.Mutex
	execs  map[string]*process
	paused bool
	ooms   uint64
	alive  sync.WaitGroup // execs whose exit has not been told
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

// State tells how a process is.
func (c *container) State(_ context.Context, r *tasks.StateRequest) (*tasks.StateResponse, error) {
	p, err := c.process(r.ExecID)
	if err != nil {
		return nil, err
	}
	response := &tasks.StateResponse{
		ID: c.id, ExecID: r.ExecID, Bundle: c.bundle, Pid: uint32(p.pid), Status: c.status(p),
		Stdin: p.streams.stdin, Stdout: p.streams.stdout, Stderr: p.streams.stderr, Terminal: p.streams.terminal,
	}
	if r.ExecID != "" {
		response.ID = r.ExecID
	}
	if p.ended() {
		response.ExitStatus, response.ExitedAt = uint32(p.end.status), timestamppb.New(p.end.at)
	}
	return response, nil
}

func (c *container) status(p *process) tasktypes.Status {
	c.mu.Lock()
	paused := c.paused
	c.mu.Unlock()
	switch {
	case p.ended():
		return tasktypes.Status_STOPPED
	case !p.isRunning():
		return tasktypes.Status_CREATED
	case paused:
		return tasktypes.Status_PAUSED
	}
	return tasktypes.Status_RUNNING
}

// Create is the Service's own.
func (c *container) Create(context.Context, *tasks.CreateTaskRequest) (*tasks.CreateTaskResponse, error) {
	return nil, fmt.Errorf("container %s: %w", c.id, errdefs.ErrAlreadyExists)
}

// Start lets the container's guest run, or starts an exec.
func (c *container) Start(ctx context.Context, r *tasks.StartRequest) (*tasks.StartResponse, error) {
	if r.ExecID != "" {
		return c.startExec(ctx, r.ExecID)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.init.start(ctx); err != nil {
		return nil, fmt.Errorf("start container %s: %w", c.id, err)
	}
	c.events.send(&eventsapi.TaskStart{ContainerID: c.id, Pid: uint32(c.init.pid)})
	return &tasks.StartResponse{Pid: uint32(c.init.pid)}, nil
}

// Delete releases what a stopped process or container held.
func (c *container) Delete(_ context.Context, r *tasks.DeleteRequest) (*tasks.DeleteResponse, error) {
	p, err := c.process(r.ExecID)
	if err != nil {
		return nil, err
	}
	if r.ExecID != "" {
		return c.deleteExec(p)
	}
	if !p.ended() {
		// Of no known kind, as from the stock shim.
		return nil, fmt.Errorf("cannot delete a running process: container %s", c.id)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.cgroup.Destroy(); err != nil {
		return nil, fmt.Errorf("remove cgroup of container %s: %w", c.id, err)
	}
	p.io.close()
	c.removeState()
	c.events.send(&eventsapi.TaskDelete{
		ContainerID: c.id, Pid: uint32(p.pid), ExitStatus: uint32(p.end.status), ExitedAt: timestamppb.New(p.end.at),
	})
	return deleted(p), nil
}

func deleted(p *process) *tasks.DeleteResponse {
	return &tasks.DeleteResponse{Pid: uint32(p.pid), ExitStatus: uint32(p.end.status), ExitedAt: timestamppb.New(p.end.at)}
}

// Pids lists the processes in the container's cgroup, or the one it had.
func (c *container) Pids(context.Context, *tasks.PidsRequest) (*tasks.PidsResponse, error) {
	pids, err := c.cgroup.Pids()
	if err != nil {
		return nil, fmt.Errorf("list processes of container %s: %w", c.id, err)
	}
	if c.init.ended() || len(pids) == 0 {
		// It stays like a zombie until it is deleted, from when it has ended and we have
		// yet to see that: the cgroup is empty then. A containerd that restarts and
		// is told of no process takes the task for one never created, removes it, and
		// the exit code is lost (loadShim in core/runtime/v2/shim_load.go).
		pids = []int{c.init.pid}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	response := &tasks.PidsResponse{}
	for _, pid := range pids {
		info := &tasktypes.ProcessInfo{Pid: uint32(pid)}
		for id, p := range c.execs {
			if p.pid == pid {
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

// Pause freezes every process of the container.
func (c *container) Pause(ctx context.Context, _ *tasks.PauseRequest) (*emptypb.Empty, error) {
	return c.freeze(ctx, true, &eventsapi.TaskPaused{ContainerID: c.id})
}

// Resume thaws them.
func (c *container) Resume(ctx context.Context, _ *tasks.ResumeRequest) (*emptypb.Empty, error) {
	return c.freeze(ctx, false, &eventsapi.TaskResumed{ContainerID: c.id})
}

func (c *container) freeze(ctx context.Context, pause bool, event proto.Message) (*emptypb.Empty, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	change, verb := func() error { return c.cgroup.Freeze(ctx) }, "pause"
	if !pause {
		change, verb = c.cgroup.Thaw, "resume"
	}
	if !c.init.isRunning() || c.paused == pause {
		return nil, fmt.Errorf("cannot %s container %s: it is not %s: %w", verb, c.id, map[bool]string{true: "running", false: "paused"}[pause], errdefs.ErrFailedPrecondition)
	}
	if err := change(); err != nil {
		return nil, fmt.Errorf("%s container %s: %w", verb, c.id, err)
	}
	c.paused = pause
	c.events.send(event)
	return empty, nil
}

// Checkpoint has no meaning for a Wasm container yet.
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
	if err := p.kill(ctx, signal); err != nil {
		return nil, err
	}
	if r.All && r.ExecID == "" {
		c.signalExecs(ctx, signal)
	}
	// A frozen process of cgroup v1 dies only once it is thawed.
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.paused && signal == unix.SIGKILL {
		if err := c.cgroup.Thaw(); err != nil {
			return nil, fmt.Errorf("thaw container %s to kill it: %w", c.id, err)
		}
		c.paused = false
	}
	return empty, nil
}

func (c *container) signalExecs(ctx context.Context, signal unix.Signal) {
	c.mu.Lock()
	running := make([]*process, 0, len(c.execs))
	for _, p := range c.execs {
		if p.isRunning() {
			running = append(running, p)
		}
	}
	c.mu.Unlock()
	for _, p := range running {
		if err := p.kill(ctx, signal); err != nil && !errors.Is(err, errdefs.ErrNotFound) {
			c.node.log.WithError(err).WithField("container", c.id).Warn("signal exec")
		}
	}
}

// ResizePty sets the size of a process's terminal.
func (c *container) ResizePty(_ context.Context, r *tasks.ResizePtyRequest) (*emptypb.Empty, error) {
	p, err := c.process(r.ExecID)
	if err != nil {
		return nil, err
	}
	if p.io == nil {
		return empty, nil
	}
	return empty, p.io.resize(r.Width, r.Height)
}

// CloseIO closes a process's standard input.
func (c *container) CloseIO(_ context.Context, r *tasks.CloseIORequest) (*emptypb.Empty, error) {
	p, err := c.process(r.ExecID)
	if err != nil {
		return nil, err
	}
	if r.Stdin && p.io != nil {
		p.io.closeStdin()
	}
	return empty, nil
}

// Wait waits for the end of a process.
func (c *container) Wait(ctx context.Context, r *tasks.WaitRequest) (*tasks.WaitResponse, error) {
	p, err := c.process(r.ExecID)
	if err != nil {
		return nil, err
	}
	if err := p.await(ctx); err != nil {
		return nil, err
	}
	return &tasks.WaitResponse{ExitStatus: uint32(p.end.status), ExitedAt: timestamppb.New(p.end.at)}, nil
}

// Connect tells the process id of the container's worker.
func (c *container) Connect(context.Context, *tasks.ConnectRequest) (*tasks.ConnectResponse, error) {
	return &tasks.ConnectResponse{TaskPid: uint32(c.init.pid)}, nil
}

// Shutdown is the Service's own.
func (c *container) Shutdown(context.Context, *tasks.ShutdownRequest) (*emptypb.Empty, error) {
	return empty, nil
}

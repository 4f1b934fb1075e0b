package shim

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/wasmshim/containerd-shim-wasm/argo"
	"github.com/wasmshim/containerd-shim-wasm/sandbox"
	"github.com/wasmshim/containerd-shim-wasm/worker/control"
)

// payload is the program that a worker runs. It is chosen where a process is made.
type payload interface {
	// program returns the program that the worker is, and whether its root is the container's. The caller does
	// not close it.
	program(d *daemon) (file *os.File, native bool, err error)
	// env is the worker's own environment.
	env() []string
	// order sends a new worker the description of what it runs.
	order(w *worker) error
	// ready waits until the worker can be started.
	ready(w *worker) error
	// started waits, after the start message, until the payload runs.
	started(ctx context.Context, w *worker) error
	// module returns the command that names the module to load, if there is one.
	module() (command, bool)
	// exec returns the payload of a further process in its container.
	exec(process *specs.Process) (payload, error)
}

// guest is a module. The worker loads it, reports, and runs it after the start message.
type guest struct {
	container *container
	process   *specs.Process
	command   command
	role      string
	isExec    bool
}

func (guest) program(d *daemon) (*os.File, bool, error) {
	worker, err := d.loader.Worker()
	return worker, false, err
}

// env returns no variables of the guest's, which come with its order. The worker allocates next to nothing
// once the guest runs, so garbage collection would only cost threads and memory. So would glibc's heap for
// each of its threads. Components do their input and output with tokio, which starts a thread for each of the
// node's processors.
func (g guest) env() []string {
	return []string{control.RoleEnv + "=" + g.role, "GOGC=off", "GOMAXPROCS=2", "GLIBC_TUNABLES=glibc.malloc.arena_max=1", "TOKIO_WORKER_THREADS=1"}
}

func (g guest) order(w *worker) error {
	order := control.Run{
		Code: sandbox.CodePath, Root: sandbox.GuestRoot,
		Args: g.command.args, Env: g.process.Env, Cwd: g.process.Cwd,
		Function: g.command.point().Function, Emissary: g.command.emissary,
	}
	if limit, ok := g.container.cgroup.MemoryLimit(); ok {
		order.MemoryLimit = guestMemory(limit, g.command.workers())
	}
	return w.control.Run(order)
}

func (g guest) ready(w *worker) error {
	// Mount while the worker loads its module.
	mountErr := g.mountCgroups(w)
	report, err := w.control.Report()
	switch {
	case err != nil:
		return g.endedEarly(err)
	case report.Error != "":
		return errors.New(report.Error)
	case mountErr != nil:
		return mountErr
	}
	// Set the limits again: a Go program raises its limit of open files when it starts.
	return sandbox.Limit(w.PID, g.process)
}

// endedEarly returns the error for a worker that ended before it reported. The Go runtime ends a process in
// which it cannot start its threads.
func (g guest) endedEarly(err error) error {
	if crowded := g.container.cgroup.CheckRoom(control.LeastThreads); crowded != nil {
		return fmt.Errorf("worker ended before it was ready: %w: %w", crowded, err)
	}
	for _, r := range g.process.Rlimits {
		if r.Type == "RLIMIT_NPROC" && g.process.User.UID != 0 {
			return fmt.Errorf("worker ended before it was ready, perhaps for want of threads: process.rlimits RLIMIT_NPROC of %d counts those of all processes of user %d: %w",
				r.Soft, g.process.User.UID, err)
		}
	}
	return fmt.Errorf("worker ended before it was ready: %w", err)
}

// mountCgroups mounts the guest's cgroup if the specification asks for it.
func (g guest) mountCgroups(w *worker) error {
	if g.isExec {
		return nil // it sees the container's mount
	}
	return sandbox.MountCgroups(w.Child.Child, g.container.spec, g.container.cgroup.Paths())
}

func (g guest) module() (command, bool) { return g.command, g.role == control.RoleRun }

func (guest) started(context.Context, *worker) error { return nil }

func (g guest) exec(process *specs.Process) (payload, error) {
	exec := guest{container: g.container, process: process, command: command{args: process.Args}, role: control.RoleRun, isExec: true}
	_, kills, err := argo.ParseKill(process.Args)
	if kills {
		exec.role = control.RoleKill
	}
	return exec, err
}

// silent is the part of a payload whose worker needs no order, reports nothing and loads no module.
type silent struct{}

func (silent) order(*worker) error { return nil }

func (silent) ready(*worker) error { return nil }

func (silent) module() (command, bool) { return command{}, false }

// awaitExec waits until a worker that has been sent the start message closes its end of the socket.
func (w *worker) awaitExec(ctx context.Context) error {
	stop := w.readUntil(ctx)
	defer stop()
	return w.control.AwaitExec()
}

// readUntil makes reads from the worker fail once ctx ends, until stop is called.
func (w *worker) readUntil(ctx context.Context) (stop func() bool) {
	return context.AfterFunc(ctx, func() { _ = w.control.SetReadDeadline(time.Now()) })
}

// standIn is a native program, a pod's pause container. Its worker needs no order and reports nothing: it
// waits for the start message, and then becomes the program.
type standIn struct {
	silent
	path    string // of the program, in the container
	process *specs.Process
}

func (standIn) program(d *daemon) (*os.File, bool, error) {
	worker, err := d.loader.Worker()
	return worker, true, err
}

func (s standIn) env() []string { return control.StandInEnv(s.path, s.process.Env) }

func (s standIn) started(ctx context.Context, w *worker) error {
	if err := w.awaitExec(ctx); err != nil {
		return fmt.Errorf("execute %s: %w", s.path, err)
	}
	return nil
}

func (standIn) exec(*specs.Process) (payload, error) {
	return nil, fmt.Errorf("a pod's pause container runs nothing beside its own program; exec in another container of the pod: %w", errdefs.ErrNotImplemented)
}

package shim

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	eventsapi "github.com/containerd/containerd/api/events"
	tasks "github.com/containerd/containerd/api/runtime/task/v2"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/wasmshim/containerd-shim-wasm/runtime/cache"
	"github.com/wasmshim/containerd-shim-wasm/runtime/control"
	"github.com/wasmshim/containerd-shim-wasm/sandbox"
)

// createWasm creates the container if it is Wasm or a pause container that we can
// launch; errNative says that it is neither.
func (n *node) createWasm(ctx context.Context, r *tasks.CreateTaskRequest, events *events) (*container, error) {
	spec, unknown, err := loadSpec(r.Bundle)
	if err != nil {
		return nil, err
	}
	if spec.Process == nil || spec.Linux == nil || len(spec.Process.Args) == 0 {
		return nil, errNative
	}
	if isPause(spec) {
		return n.createPause(ctx, r, spec, unknown, events)
	}
	sb, err := sandbox.New(n.stateDir, spec.Linux.RootfsPropagation)
	if err != nil {
		return nil, err
	}
	defer sb.Close()
	module, mounted, err := n.findModule(sb, r, spec)
	if err != nil {
		return nil, err
	}
	defer module.Close()
	c, err := n.newContainer(r, spec, events)
	if err != nil {
		return nil, err
	}
	if err := c.refuse(r, unknown); err != nil {
		return nil, err
	}
	return c, c.create(ctx, r, sb, module, mounted)
}

func (n *node) newContainer(r *tasks.CreateTaskRequest, spec *specs.Spec, events *events) (*container, error) {
	c := &container{node: n, events: events, id: r.ID, bundle: r.Bundle, spec: spec, execs: map[string]*process{}}
	var err error
	c.settings, err = n.settings(r.Options)
	return c, err
}

// findModule mounts the root file system and opens the module that the
// container's command names. A command that lies on a volume needs the volumes
// mounted first.
func (n *node) findModule(sb *sandbox.Sandbox, r *tasks.CreateTaskRequest, spec *specs.Spec) (*os.File, bool, error) {
	if err := sb.MountRootfs(rootfsMounts(r), spec.Root, r.Bundle); err != nil {
		return nil, false, err
	}
	entry := parseEntryPoint(spec.Process.Args[0])
	mounted := false
	if filepath.IsAbs(entry.file) && sandbox.CoveredByMount(spec, filepath.Clean(entry.file)) {
		if err := sb.MountAll(spec); err != nil {
			return nil, false, notWasm(entry, err)
		}
		mounted = true
	}
	module, err := openModule(sb, spec.Process, entry)
	return module, mounted, err
}

func rootfsMounts(r *tasks.CreateTaskRequest) []sandbox.Mount {
	mounts := make([]sandbox.Mount, 0, len(r.Rootfs))
	for _, m := range r.Rootfs {
		mounts = append(mounts, sandbox.Mount{Type: m.Type, Source: m.Source, Target: m.Target, Options: m.Options})
	}
	return mounts
}

// refuse names what about the container cannot be honoured.
func (c *container) refuse(r *tasks.CreateTaskRequest, unknown error) error {
	if unknown != nil {
		return unknown
	}
	if r.Checkpoint != "" {
		return errors.New("restoring a checkpoint is not supported in Wasm containers")
	}
	return sandbox.Check(c.spec)
}

// create launches the container's worker, which then waits for Start.
func (c *container) create(ctx context.Context, r *tasks.CreateTaskRequest, sb *sandbox.Sandbox, module *os.File, mounted bool) error {
	compiled, err := c.compile(ctx, c.spec.Process, module)
	if err != nil {
		return err
	}
	defer compiled.Code.Close()
	return c.launch(r, sb, sandbox.Launch{Mounted: mounted, Module: compiled.Code})
}

// launch starts the container's process, which then waits for Start, and tells of
// it.
func (c *container) launch(r *tasks.CreateTaskRequest, sb *sandbox.Sandbox, launch sandbox.Launch) error {
	var err error
	c.systemd = c.settings.systemdCgroup(c.spec)
	if c.cgroup, err = c.node.newCgroup(c.id, c.spec, c.systemd); err != nil {
		return err
	}
	c.init = newProcess(c, "", c.spec.Process, streams{stdin: r.Stdin, stdout: r.Stdout, stderr: r.Stderr, terminal: r.Terminal})
	launch.Spec, launch.Process, launch.Worker = c.spec, c.spec.Process, c.node.worker
	if err := c.init.launch(sb, launch); err != nil {
		return errors.Join(err, c.cgroup.Destroy())
	}
	if err := c.writeState(); err != nil {
		c.init.abort()
		return errors.Join(err, c.cgroup.Destroy())
	}
	c.events.send(&eventsapi.TaskCreate{
		ContainerID: c.id, Bundle: c.bundle, Rootfs: r.Rootfs, Pid: uint32(c.init.pid),
		IO: &eventsapi.TaskIO{Stdin: r.Stdin, Stdout: r.Stdout, Stderr: r.Stderr, Terminal: r.Terminal},
	})
	go c.init.watch()
	return nil
}

// compile returns the machine code of an open module for a process.
func (c *container) compile(ctx context.Context, p *specs.Process, module *os.File) (cache.Entry, error) {
	if err := c.node.prepareEngine(); err != nil {
		return cache.Entry{}, err
	}
	return c.node.compiled(ctx, c.settings, module, parseEntryPoint(p.Args[0]))
}

// order is what the worker of process p is told.
func (c *container) order(p *specs.Process) control.Guest {
	guest := control.Guest{
		Module: sandbox.Module, Root: sandbox.GuestRoot,
		Args: p.Args, Env: p.Env, Cwd: p.Cwd,
		Function: parseEntryPoint(p.Args[0]).function,
	}
	if limit, ok := c.cgroup.MemoryLimit(); ok {
		guest.MemoryLimit = guestMemory(limit)
	}
	return guest
}

// workerMemory is what a worker itself needs of its container's memory limit:
// its heap, its stacks and the page tables of the guest's memory.
const workerMemory = 4 << 20

// guestMemory is how far a guest's linear memory may grow under a cgroup's
// limit, so that memory.grow fails before the kernel has to kill.
func guestMemory(limit uint64) uint64 {
	return max(limit-min(limit, workerMemory), limit/2)
}

// prepareEngine makes the worker's binary ready, once.
func (n *node) prepareEngine() error {
	n.engineOnce.Do(func() { n.engineErr = n.openEngine() })
	return n.engineErr
}

func (n *node) openEngine() error {
	worker, digest, err := n.placeWorker(LibDir)
	if err != nil {
		return fmt.Errorf("place the worker: %w", err)
	}
	n.worker, n.engine = worker, digest+cpuKey()
	return nil
}

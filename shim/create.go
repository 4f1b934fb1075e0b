package shim

import (
	"context"
	"errors"
	"slices"
	"strings"

	eventsapi "github.com/containerd/containerd/api/events"
	tasks "github.com/containerd/containerd/api/runtime/task/v2"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/wasmshim/containerd-shim-wasm/argo"
	"github.com/wasmshim/containerd-shim-wasm/argo/executor"
	"github.com/wasmshim/containerd-shim-wasm/entrypoint"
	"github.com/wasmshim/containerd-shim-wasm/module"
	"github.com/wasmshim/containerd-shim-wasm/sandbox"
	"github.com/wasmshim/containerd-shim-wasm/sandbox/cgroup"
	"github.com/wasmshim/containerd-shim-wasm/shim/stdio"
	"github.com/wasmshim/containerd-shim-wasm/worker/control"
)

// createWasm creates the container if it is Wasm or a pause container that we can launch. It returns
// module.ErrNative for any other container.
func (d *daemon) createWasm(ctx context.Context, r *tasks.CreateTaskRequest, events *events) (*container, error) {
	spec, unknown, err := loadSpec(r.Bundle)
	if err != nil {
		return nil, err
	}
	if spec.Process == nil || spec.Linux == nil || len(spec.Process.Args) == 0 {
		return nil, module.ErrNative
	}
	if isPause(spec) {
		return d.createPause(ctx, r, spec, unknown, events)
	}
	if executor.Verb(spec.Process.Args) != "" {
		return d.createExecutor(ctx, r, spec, unknown, events)
	}
	sb, err := sandbox.New(d.stateDir, spec.Linux.RootfsPropagation)
	if err != nil {
		return nil, err
	}
	defer sb.Close()
	c := d.newContainer(r, spec, events)
	if c.command, err = parseCommand(spec.Process.Args); err != nil {
		return nil, err
	}
	err = c.createIn(ctx, sb, r, unknown)
	if err != nil && !isNative(err) {
		err = errors.Join(err, c.command.leaveExitCode(spec, argo.ExitFailure))
	}
	return c, err
}

func (d *daemon) newContainer(r *tasks.CreateTaskRequest, spec *specs.Spec, events *events) *container {
	rootfs := rootfsMounts(r, spec)
	return &container{
		daemon: d, events: events, id: r.ID, bundle: r.Bundle, spec: spec, rootfs: rootfs, stderr: r.Stderr,
		modules: d.loader.Container(module.About{ID: r.ID, ImageName: spec.Annotations[imageNameAnnotation], Rootfs: rootfs}),
		execs:   map[string]*process{}, counted: make(chan struct{}), gone: make(chan struct{}),
	}
}

// createIn creates the container in an empty sandbox. unknown is a field of its
// specification that cannot be honoured (loadSpec).
func (c *container) createIn(ctx context.Context, sb *sandbox.Sandbox, r *tasks.CreateTaskRequest, unknown error) error {
	if of := c.daemon.workflow.Load(); of.needsDownload(c) {
		if err := of.fetch(ctx); err != nil {
			return err
		}
	}
	// What artifacts are read with goes before a volume may be mounted, to look for the module. An error waits until it is
	// known that the container is Wasm.
	refused := c.prepare(r, unknown)
	if refused == nil {
		c.requested, refused = c.request()
	}
	from, err := c.findModule(ctx, sb)
	if err != nil {
		return err
	}
	defer from.Close()
	if refused != nil {
		return refused
	}
	return c.create(ctx, r, sb, from)
}

// prepare reads the settings and refuses fields that cannot be honoured.
func (c *container) prepare(r *tasks.CreateTaskRequest, unknown error) error {
	var err error
	if c.settings, err = c.daemon.settings(r.Options); err != nil {
		return err
	}
	c.systemd = c.settings.UsesSystemd(c.spec.Linux.CgroupsPath)
	return c.refuse(r, unknown)
}

// findModule opens the module that the container's command names, and leaves the root file system mounted. If
// the entry point does not say that it is Wasm, findModule first looks at the file in a view: the stock shim
// mounts the root file system of a native container.
func (c *container) findModule(ctx context.Context, sb *sandbox.Sandbox) (module.Source, error) {
	point := c.command.point()
	if point.IsWasm() {
		if err := sb.MountRootfs(c.rootfs, c.spec.Root, c.bundle); err != nil {
			return module.Source{}, err
		}
		return c.openModule(ctx, sb, point)
	}
	if err := sb.ViewRootfs(c.rootfs, c.spec.Root, c.bundle); err != nil {
		return module.Source{}, module.NotWasm(point, err)
	}
	from, err := c.openModule(ctx, sb, point)
	if err != nil {
		return module.Source{}, err
	}
	if err := sb.MountRootfs(c.rootfs, c.spec.Root, c.bundle); err != nil {
		from.Close()
		return module.Source{}, err
	}
	return from, nil
}

// openModule opens the module. It mounts the volumes first if they decide which file a command names, as for
// any program.
func (c *container) openModule(ctx context.Context, sb *sandbox.Sandbox, point entrypoint.Point) (module.Source, error) {
	process := c.spec.Process
	paths := point.Paths(process.Cwd, process.Env)
	if local := point.Local(process.Cwd); local != "" {
		paths = append(paths, local)
	}
	if sb.MountsDecide(ctx, c.spec, paths) {
		if err := sb.MountAll(c.spec); err != nil {
			return module.Source{}, module.NotWasm(point, err)
		}
	}
	return c.modules.Open(ctx, sb, process, point)
}

// rootfsMounts returns the mounts of a container's root file system. It leaves out the id mappings that
// containerd 2.x adds for a pod with a user namespace: such a container is only viewed, to learn whether it
// is Wasm, and then refused or left to the stock shim.
func rootfsMounts(r *tasks.CreateTaskRequest, spec *specs.Spec) []sandbox.Mount {
	mounts := make([]sandbox.Mount, 0, len(r.Rootfs))
	for _, m := range r.Rootfs {
		options := m.Options
		if hasUserNamespace(spec) {
			options = slices.DeleteFunc(slices.Clone(options), isIDMapping)
		}
		mounts = append(mounts, sandbox.Mount{Type: m.Type, Source: m.Source, Target: m.Target, Options: options})
	}
	return mounts
}

func isIDMapping(option string) bool {
	return strings.HasPrefix(option, "uidmap=") || strings.HasPrefix(option, "gidmap=")
}

func hasUserNamespace(spec *specs.Spec) bool {
	return slices.ContainsFunc(spec.Linux.Namespaces, func(ns specs.LinuxNamespace) bool { return ns.Type == specs.UserNamespace })
}

// refuse returns an error for a field of the container that cannot be honoured.
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
func (c *container) create(ctx context.Context, r *tasks.CreateTaskRequest, sb *sandbox.Sandbox, from module.Source) error {
	code, err := c.modules.Load(ctx, module.Request{Source: from, Settings: c.settings, Payer: c.account(), Keep: true})
	if err != nil {
		return err
	}
	// The worker holds the code after launch.
	defer code.Close()
	artifacts, err := c.serveArtifacts(ctx)
	if err != nil {
		return err
	}
	requested, err := c.requested.serve(ctx, c)
	if err != nil {
		c.endArtifacts()
		c.removeState()
		return errors.Join(err, closeMounts(artifacts))
	}
	artifacts = append(artifacts, requested...)
	runs := guest{container: c, process: c.spec.Process, command: c.command, role: control.RoleRun}
	err = c.launch(ctx, r, sb, runs, sandbox.Launch{Code: code.File, Reserved: c.command.reserved(c.spec.Process.Env), Fuse: artifacts})
	if err = errors.Join(err, closeMounts(artifacts)); err != nil {
		code.Forget()
		c.endArtifacts()
		c.removeState()
		return err
	}
	go code.Keep(c.init.awaitBegun)
	return nil
}

// account returns the account for all work on the container's modules. A tenant is a containerd namespace
// together with a Kubernetes namespace.
func (c *container) account() module.Account {
	tenant := c.daemon.flags.Namespace
	if namespace := c.spec.Annotations[sandboxNamespaceAnnotation]; namespace != "" {
		tenant += "/" + namespace
	}
	pod := c.spec.Annotations[sandboxIDAnnotation]
	if pod == "" {
		pod = c.id
	}
	return module.Account{
		Tenant: tenant, Pod: c.daemon.flags.Namespace + "/" + pod,
		CgroupsPath: c.spec.Linux.CgroupsPath, Systemd: c.settings.UsesSystemd(c.spec.Linux.CgroupsPath), Resources: c.spec.Linux.Resources,
	}
}

// launch starts the container's process, which then waits for Start, runs the hooks, and publishes the
// creation.
func (c *container) launch(ctx context.Context, r *tasks.CreateTaskRequest, sb *sandbox.Sandbox, runs payload, launch sandbox.Launch) error {
	var err error
	if launch.Worker, launch.Native, err = runs.program(c.daemon); err != nil {
		return err
	}
	if c.cgroup, err = cgroup.New(c.id, c.spec, c.systemd); err != nil {
		return err
	}
	c.init = newProcess(c, "", launching, c.spec.Process, runs, stdio.Names{Stdin: r.Stdin, Stdout: r.Stdout, Stderr: r.Stderr, Terminal: r.Terminal})
	launch.Spec, launch.Process = c.spec, c.spec.Process
	launch.CreateContainer = c.createContainerHooks()
	hooked := launch.CreateContainer != nil
	if hooked {
		if err := c.writeStateBefore(); err != nil {
			return errors.Join(err, c.cgroup.Destroy())
		}
	}
	if err := c.init.launch(ctx, sb, launch); err != nil {
		err = errors.Join(err, c.cgroup.Destroy())
		if hooked {
			c.undoHooks(ctx)
		}
		return err
	}
	if err := c.writeState(); err != nil {
		c.init.worker.abort()
		err = errors.Join(err, c.cgroup.Destroy())
		if hooked {
			c.undoHooks(ctx)
		}
		return err
	}
	if err := c.createHooks(ctx); err != nil {
		c.init.worker.abort()
		err = errors.Join(err, c.cgroup.Destroy())
		c.undoHooks(ctx)
		return err
	}
	c.events.send(&eventsapi.TaskCreate{
		ContainerID: c.id, Bundle: c.bundle, Rootfs: r.Rootfs, Pid: uint32(c.init.pid()),
		IO: &eventsapi.TaskIO{Stdin: r.Stdin, Stdout: r.Stdout, Stderr: r.Stderr, Terminal: r.Terminal},
	})
	go c.init.watch()
	return nil
}

// workerMemory is the part of its container's memory limit that a worker itself needs: its heap, its stacks
// and the page tables of the guest's memory.
const workerMemory = 4 << 20

// guestMemory returns the limit of a guest's linear memory under a cgroup's limit that it shares with that
// many workers. With it memory.grow fails before the kernel has to kill.
func guestMemory(limit, workers uint64) uint64 {
	return max(limit-min(limit, workers*workerMemory), limit/2)
}

package shim

import (
	"context"
	"errors"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/wasmshim/containerd-shim-wasm/hooks"
	"github.com/wasmshim/containerd-shim-wasm/sandbox"
)

// hookState is what hooks are told of a container; pid is 0 where it has no process, or none whose number is
// known.
func hookState(id, bundle string, spec *specs.Spec, status specs.ContainerState, pid int) specs.State {
	return specs.State{Version: spec.Version, ID: id, Status: status, Pid: pid, Bundle: bundle, Annotations: spec.Annotations}
}

// createHooks runs what is to be run when the container's namespaces and its process exist.
func (c *container) createHooks(ctx context.Context) error {
	return hooks.Create(ctx, c.spec.Hooks, hookState(c.id, c.bundle, c.spec, specs.StateCreating, c.init.pid()))
}

// createContainerHooks returns what runs in the container's namespaces before its process exists
// (sandbox.Launch), nil for nothing.
func (c *container) createContainerHooks() func(ctx context.Context, rootfs string) error {
	if c.spec.Hooks == nil || len(c.spec.Hooks.CreateContainer) == 0 {
		return nil
	}
	pid := 0
	if sandbox.CreatesNamespace(c.spec.Linux, specs.PIDNamespace) {
		pid = 1 // as the container will see its process, which is what runc tells
	}
	state := hookState(c.id, c.bundle, c.spec, specs.StateCreating, pid)
	return func(ctx context.Context, rootfs string) error {
		return hooks.CreateContainer(ctx, c.spec.Hooks, state, rootfs)
	}
}

// undoHooks has a container that is not created after all run its poststop hooks, once: the delete verb does so where
// it finds a state.
func (c *container) undoHooks(ctx context.Context) {
	c.daemon.poststop(context.WithoutCancel(ctx), c.id, c.bundle, c.spec)
	c.removeState()
}

// poststart runs what is to be run when the guest does. A hook that fails ends it.
func (c *container) poststart(ctx context.Context) error {
	err := hooks.Poststart(ctx, c.spec.Hooks, hookState(c.id, c.bundle, c.spec, specs.StateRunning, c.init.pid()))
	if err != nil {
		c.forbidPause()
		err = errors.Join(err, c.init.signal(unix.SIGKILL), c.thaw())
	}
	return err
}

// poststop runs what is to be run when a container is gone, and tells nobody but the log of what fails.
func (d *daemon) poststop(ctx context.Context, id, bundle string, spec *specs.Spec) {
	if err := hooks.Poststop(ctx, spec.Hooks, hookState(id, bundle, spec, specs.StateStopped, 0)); err != nil {
		d.log.WithError(err).WithField("container", id).Warn("what it had outside may be left")
	}
}

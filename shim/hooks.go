package shim

import (
	"context"
	"errors"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/wasmshim/containerd-shim-wasm/hooks"
	"github.com/wasmshim/containerd-shim-wasm/sandbox"
)

// hookState returns the state of a container that hooks get. pid is 0 if it has no process, or none whose
// number is known.
func hookState(id, bundle string, spec *specs.Spec, status specs.ContainerState, pid int) specs.State {
	return specs.State{Version: spec.Version, ID: id, Status: status, Pid: pid, Bundle: bundle, Annotations: spec.Annotations}
}

// createHooks runs the hooks that run when the container's namespaces and its process exist.
func (c *container) createHooks(ctx context.Context) error {
	return hooks.Create(ctx, c.spec.Hooks, hookState(c.id, c.bundle, c.spec, specs.StateCreating, c.init.pid()))
}

// createContainerHooks returns the function that runs the createContainer hooks in the container's namespaces
// before its process exists (sandbox.Launch), or nil if there are none.
func (c *container) createContainerHooks() func(ctx context.Context, rootfs string) error {
	if c.spec.Hooks == nil || len(c.spec.Hooks.CreateContainer) == 0 {
		return nil
	}
	pid := 0
	if sandbox.CreatesNamespace(c.spec.Linux, specs.PIDNamespace) {
		pid = 1 // the number that the container will see, as from runc
	}
	state := hookState(c.id, c.bundle, c.spec, specs.StateCreating, pid)
	return func(ctx context.Context, rootfs string) error {
		return hooks.CreateContainer(ctx, c.spec.Hooks, state, rootfs)
	}
}

// undoHooks runs the poststop hooks of a container whose creation has failed, once: the delete verb runs them
// if it finds a state.
func (c *container) undoHooks(ctx context.Context) {
	c.daemon.poststop(context.WithoutCancel(ctx), c.id, c.bundle, c.spec)
	c.removeState()
}

// poststart runs the poststart hooks, once the guest runs. A hook that fails ends the guest.
func (c *container) poststart(ctx context.Context) error {
	err := hooks.Poststart(ctx, c.spec.Hooks, hookState(c.id, c.bundle, c.spec, specs.StateRunning, c.init.pid()))
	if err != nil {
		c.forbidPause()
		err = errors.Join(err, c.init.signal(unix.SIGKILL), c.thaw())
	}
	return err
}

// poststop runs the poststop hooks of a container that is gone. Their errors go only to the log.
func (d *daemon) poststop(ctx context.Context, id, bundle string, spec *specs.Spec) {
	if err := hooks.Poststop(ctx, spec.Hooks, hookState(id, bundle, spec, specs.StateStopped, 0)); err != nil {
		d.log.WithError(err).WithField("container", id).Warn("what it had outside may be left")
	}
}

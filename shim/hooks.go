package shim

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"

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

// poststop runs the poststop hooks of a container that is gone, unless they have been run. Their errors go
// only to the log.
func (d *daemon) poststop(ctx context.Context, id, bundle string, spec *specs.Spec) {
	if spec.Hooks == nil || len(spec.Hooks.Poststop) == 0 {
		return
	}
	log := d.log.WithField("container", id)
	turn, err := takePoststop(bundle)
	if err != nil {
		log.WithError(err).Warn("run the poststop hooks: what the container had outside may be left")
		return
	}
	if turn == nil {
		return
	}
	defer turn.Close()
	if err := hooks.Poststop(ctx, spec.Hooks, hookState(id, bundle, spec, specs.StateStopped, 0)); err != nil {
		log.WithError(err).Warn("what it had outside may be left")
	}
	if _, err := turn.WriteString("done\n"); err != nil {
		log.WithError(err).Warn("note that the poststop hooks have been run: they may be run again")
	}
}

// poststopFile is in the bundle of a container whose poststop hooks are being run or have been run.
const poststopFile = "wasm-poststop"

// takePoststop returns the file in which to note that the poststop hooks have been run, or nil if they have
// been. The daemon and the delete verb may both be about to run them, when the creation of a container is
// given up: the second waits for the first. If the first dies, its lock ends, and the second runs them.
func takePoststop(bundle string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(bundle, poststopFile), os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil // containerd removes a bundle only after the delete verb, which has run them
	}
	if err != nil {
		return nil, err
	}
	for {
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	if err != nil {
		return nil, errors.Join(&os.PathError{Op: "lock", Path: f.Name(), Err: err}, f.Close())
	}
	info, err := f.Stat()
	if err != nil || info.Size() > 0 {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

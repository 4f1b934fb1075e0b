package shim

import (
	"context"
	"errors"
	"fmt"
	"os"

	tasks "github.com/containerd/containerd/api/runtime/task/v2"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/wasmshim/containerd-shim-wasm/entrypoint"
	"github.com/wasmshim/containerd-shim-wasm/module"
	"github.com/wasmshim/containerd-shim-wasm/sandbox"
)

// isPause reports whether a container is the one that holds a pod's namespaces.
func isPause(spec *specs.Spec) bool { return spec.Annotations[containerTypeAnnotation] == "sandbox" }

// createPause launches a pod's pause container, so that a pod of Wasm containers needs no stock shim. Its
// program is native and runs as it would under runc, with two differences that a program which only waits
// does not notice. /proc is empty, because the real one would be that of the launching thread, which is not
// in the new pid namespace. HOME is not looked up in the image's /etc/passwd.
//
// If anything about it is unexpected, the stock shim gets it: module.ErrNative wraps the reason.
func (d *daemon) createPause(ctx context.Context, r *tasks.CreateTaskRequest, spec *specs.Spec, unknown error, events *events) (*container, error) {
	c, err := d.launchPause(ctx, r, spec, unknown, events)
	if err != nil {
		d.log.WithError(err).WithField("container", r.ID).Info("the pause container is left to the stock shim")
		return nil, fmt.Errorf("%w: %w", module.ErrNative, err)
	}
	d.pause.Store(c)
	return c, nil
}

func (d *daemon) launchPause(ctx context.Context, r *tasks.CreateTaskRequest, spec *specs.Spec, unknown error, events *events) (*container, error) {
	c := d.newContainer(r, spec, events)
	if err := c.prepare(r, unknown); err != nil {
		return nil, err
	}
	if err := sandbox.CheckNative(spec); err != nil {
		return nil, err
	}
	sb, err := sandbox.New(d.stateDir, spec.Linux.RootfsPropagation)
	if err != nil {
		return nil, err
	}
	defer sb.Close()
	// View it first: a root file system that the stock shim gets must not have been mounted.
	if err := sb.ViewRootfs(c.rootfs, spec.Root, r.Bundle); err != nil {
		return nil, err
	}
	point := entrypoint.Point{File: spec.Process.Args[0]}
	if sb.MountsDecide(ctx, spec, point.Paths(spec.Process.Cwd, spec.Process.Env)) {
		if err := sb.MountAll(spec); err != nil {
			return nil, err
		}
	}
	program, err := findStatic(ctx, sb, spec.Process)
	if err != nil {
		return nil, err
	}
	if err := sb.MountRootfs(c.rootfs, spec.Root, r.Bundle); err != nil {
		return nil, err
	}
	return c, c.launch(ctx, r, sb, standIn{path: program, process: spec.Process}, sandbox.Launch{})
}

// findStatic returns the path of a process's program if the kernel alone can run it.
func findStatic(ctx context.Context, sb *sandbox.Sandbox, process *specs.Process) (string, error) {
	path, err := sb.LookPath(ctx, entrypoint.Point{File: process.Args[0]}, process.Cwd, process.Env)
	if err != nil {
		return "", err
	}
	file, err := sb.OpenFile(path)
	if err != nil {
		return "", err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return "", err
	}
	if info.Mode()&0o111 == 0 {
		return "", &os.PathError{Op: "execute", Path: path, Err: errors.New("not executable")}
	}
	if err := checkStatic(file); err != nil {
		return "", &os.PathError{Op: "execute", Path: path, Err: err}
	}
	return path, nil
}

package shim

import (
	"context"
	"errors"
	"fmt"
	"os"

	tasks "github.com/containerd/containerd/api/runtime/task/v2"
	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/wasmshim/containerd-shim-wasm/argo"
	"github.com/wasmshim/containerd-shim-wasm/argo/executor"
	"github.com/wasmshim/containerd-shim-wasm/internal/environ"
	"github.com/wasmshim/containerd-shim-wasm/module"
	"github.com/wasmshim/containerd-shim-wasm/sandbox"
	"github.com/wasmshim/containerd-shim-wasm/worker/control"
)

// createExecutor launches our own program in the place of Argo's executor, in the init and the wait container
// of a workflow's pod. If anything about the container is not known, the stock shim gets it, with the real
// executor: module.ErrNative wraps the reason.
func (d *daemon) createExecutor(ctx context.Context, r *tasks.CreateTaskRequest, spec *specs.Spec, unknown error, events *events) (*container, error) {
	c, err := d.launchExecutor(ctx, r, spec, unknown, events)
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		// It was called off, or stopped by a process of the host's pid namespace, which may get into the real executor.
		return nil, err
	}
	if err != nil {
		d.log.WithError(err).WithField("container", r.ID).Info("Argo's executor is left to the stock shim")
		return nil, fmt.Errorf("%w: %w", module.ErrNative, err)
	}
	return c, nil
}

func (d *daemon) launchExecutor(ctx context.Context, r *tasks.CreateTaskRequest, spec *specs.Spec, unknown error, events *events) (*container, error) {
	runs, err := d.knownExecutor(spec)
	if err != nil {
		return nil, err
	}
	unshareProcesses(spec)
	c := d.newContainer(r, spec, events)
	if err := c.prepare(r, unknown); err != nil {
		return nil, err
	}
	if !c.settings.ArgoExecutor {
		return nil, fmt.Errorf("argo_executor is false in %s", c.settings.Source)
	}
	sb, err := sandbox.New(d.stateDir, spec.Linux.RootfsPropagation)
	if err != nil {
		return nil, err
	}
	defer sb.Close()
	if err := sb.MountRootfs(c.rootfs, spec.Root, r.Bundle); err != nil {
		return nil, err
	}
	template, isInit := runs.writes()
	var of *workflow
	if isInit {
		if of, err = d.newWorkflow(c, template); err != nil {
			return nil, err
		}
		runs.Lazy = len(of.lazy) > 0
	}
	if err := c.launch(ctx, r, sb, runs, sandbox.Launch{}); err != nil {
		return nil, err
	}
	if isInit {
		d.workflow.Store(of)
	} else {
		d.workflow.Load().wait.Store(c)
	}
	return c, nil
}

// unshareProcesses gives a container of a pod that shares one pid namespace another one of its own. A neighbour in the
// same namespace with the program's user and capabilities could kill the program, and reach the service account's
// token through /proc/PID/root: between exit_mm and exit_fs of the kernel's do_exit, a process is protected no longer
// by being undumpable (ptrace_may_access in kernel/ptrace.c). The program needs no process but its own.
func unshareProcesses(spec *specs.Spec) {
	for i := range spec.Linux.Namespaces {
		if ns := &spec.Linux.Namespaces[i]; ns.Type == specs.PIDNamespace {
			ns.Path = ""
		}
	}
}

// executorAnnotation of a pod, whatever its value, leaves the pod's init and wait containers to the real executor.
// A pod cannot ask for our program by it where the operator has turned that off.
const executorAnnotation = "wasm.shim/native-argoexec"

// knownExecutor returns our program for a container that runs a command of the executor that is known. The
// command wait reads the template that init has written, so it is known only in a pod whose init was.
func (d *daemon) knownExecutor(spec *specs.Spec) (argoExecutor, error) {
	release, err := knownRelease(spec)
	runs := argoExecutor{Executor: control.Executor{Release: release}, process: spec.Process}
	if err != nil || executor.Verb(spec.Process.Args) == "init" {
		return runs, err
	}
	of := d.workflow.Load()
	if of == nil {
		return runs, errors.New("this shim has not stood in for the pod's init container")
	}
	runs.Template = of.digest
	return runs, nil
}

// knownRelease returns the release of the executor of which a container runs a command that is known.
func knownRelease(spec *specs.Spec) (string, error) {
	if spec.Annotations[sandboxIDAnnotation] == "" {
		return "", errors.New("it is not in a pod")
	}
	if value, set := spec.Annotations[executorAnnotation]; set {
		return "", fmt.Errorf("the pod has the annotation %s: %.100q", executorAnnotation, value)
	}
	release, err := executor.Release(spec.Annotations[imageNameAnnotation])
	if err != nil {
		return "", err
	}
	if err := executor.Known(spec.Process.Args, spec.Process.Env); err != nil {
		return "", err
	}
	return release, nil
}

// argoExecutor is our own program in the place of Argo's executor. Its worker is the program itself, which
// needs no order and reports nothing: it waits for the start message.
type argoExecutor struct {
	silent
	control.Executor
	process *specs.Process
}

// writes returns the template that the program leaves for others, and reports whether it does: as init.
func (e argoExecutor) writes() (string, bool) {
	if executor.Verb(e.process.Args) != "init" {
		return "", false
	}
	return environ.Lookup(e.process.Env, "ARGO_TEMPLATE")
}

func (argoExecutor) program(d *daemon) (*os.File, bool, error) {
	file, _, err := d.executor.Open(d.placeExecutor)
	if err != nil {
		return nil, false, fmt.Errorf("place the executor: %w", err)
	}
	return file, true, nil
}

func (e argoExecutor) env() []string { return e.Env(e.process.Env) }

// started waits until the program handles signals: process 1 of a pid namespace loses those it does not.
func (argoExecutor) started(ctx context.Context, w *worker) error {
	if err := w.awaitExec(ctx); err != nil {
		return fmt.Errorf("start the executor: %w", err)
	}
	return nil
}

// exec allows what Argo's controller runs in a wait container to end it.
func (e argoExecutor) exec(process *specs.Process) (payload, error) {
	_, kills, err := argo.ParseKill(process.Args)
	if err != nil {
		return nil, err
	}
	if !kills {
		return nil, fmt.Errorf("this is not Argo's executor but a program in its place, which runs only argoexec kill beside itself; exec in another container of the pod: %w",
			errdefs.ErrNotImplemented)
	}
	e.process = process
	return e, nil
}

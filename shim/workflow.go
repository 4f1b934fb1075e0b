package shim

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/wasmshim/containerd-shim-wasm/argo/executor"
	"github.com/wasmshim/containerd-shim-wasm/worker/control"
)

// workflow is the step of a workflow whose pod this is: what the pod's init container has left undone, because no
// container may ever need it. Our program in the wait container does it then, in an exec: that container has the
// credentials, the network and argoexec, and Argo's controller puts it before the others.
type workflow struct {
	digest string              // of the template
	lazy   []executor.Artifact // the input artifacts that init has not loaded
	wait   atomic.Pointer[container]

	doing chan struct{} // has room for one, who does something

	mu   sync.Mutex
	done map[string]bool // by the verb of our program
}

// newWorkflow returns the step that an init container prepares.
func (d *daemon) newWorkflow(init *container, text string) (*workflow, error) {
	template, err := executor.ParseTemplate([]byte(text))
	if err != nil {
		return nil, err
	}
	of := &workflow{digest: control.TemplateDigest(text), lazy: template.Lazy(), doing: make(chan struct{}, 1), done: map[string]bool{}}
	if len(of.lazy) > 0 && !init.mayServe() {
		of.lazy = nil
	}
	return of, nil
}

// prepare does for a native container what the pod's init container has left undone.
func (of *workflow) prepare(ctx context.Context, spec *specs.Spec) error {
	if of == nil {
		return nil
	}
	if spec.Process != nil && needsArgoexec(spec.Process.Args) {
		if err := of.once(ctx, executor.StageVerb); err != nil {
			return fmt.Errorf("copy argoexec to %s for a native container: %w", executor.Argoexec, err)
		}
	}
	if len(of.lazyIn(spec)) > 0 {
		return of.fetch(ctx)
	}
	return nil
}

// fetch loads the input artifacts that init has not loaded.
func (of *workflow) fetch(ctx context.Context) error {
	if err := of.once(ctx, executor.FetchVerb); err != nil {
		return fmt.Errorf("load the input artifacts: %w", err)
	}
	return nil
}

// needsArgoexec reports whether a command runs argoexec from the pod's volume, itself or by a shell.
func needsArgoexec(args []string) bool {
	return slices.ContainsFunc(args, func(arg string) bool { return strings.Contains(arg, executor.Argoexec) })
}

// once runs a command of our program in the wait container unless it has succeeded before.
func (of *workflow) once(ctx context.Context, verb string) error {
	select {
	case of.doing <- struct{}{}:
		defer func() { <-of.doing }()
	case <-ctx.Done():
		return fmt.Errorf("wait until it is done for another container: %w", ctx.Err())
	}
	if of.has(verb) {
		return nil
	}
	c, runs, err := of.executor(verb)
	if err != nil {
		return err
	}
	p := c.newHelper("wasm-shim-"+verb, runs.process, helper{runs}, nil)
	err = c.startHelper(ctx, p)
	if err == nil {
		// It has nothing more to do. A process of the host's pid namespace may have stopped it.
		err = c.endHelper(ctx, p)
	}
	if err == nil {
		of.mu.Lock()
		of.done[verb] = true
		of.mu.Unlock()
	}
	return err
}

// has reports whether a command has been run.
func (of *workflow) has(verb string) bool {
	of.mu.Lock()
	defer of.mu.Unlock()
	return of.done[verb]
}

// executor returns the wait container, and what our program there runs as for a command of its own.
func (of *workflow) executor(verb string) (*container, argoExecutor, error) {
	c := of.wait.Load()
	if c == nil || c.init.now() != running {
		return nil, argoExecutor{}, fmt.Errorf("this is done in the pod's wait container, in which our program does not run; "+
			"the annotation %s of the pod leaves all of this to the real argoexec", executorAnnotation)
	}
	runs := c.init.payload.(argoExecutor)
	process := *c.spec.Process
	process.Args, process.Terminal = []string{"argoexec", verb}, false
	runs.process = &process
	return c, runs, nil
}

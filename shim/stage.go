package shim

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/wasmshim/containerd-shim-wasm/argo/executor"
	"github.com/wasmshim/containerd-shim-wasm/shim/stdio"
)

// stageID is the id of the exec that copies argoexec.
const stageID = "wasm-shim-copy-argoexec"

// stage copies argoexec into the volume of a workflow's pod before the first native container whose command is there.
// The pod's init container does not copy it where our program does that container's work: the file has 114 MB, and
// Wasm containers do not need it. It is copied inside the wait container, which has argoexec in its image and which
// Argo's controller puts before the others.
func (s *service) stage(ctx context.Context, bundle string) error {
	if s.daemon.template.Load() == nil {
		return nil
	}
	spec, _, err := loadSpec(bundle)
	if err != nil {
		return err
	}
	if spec.Process == nil || !needsArgoexec(spec.Process.Args) {
		return nil
	}
	s.staging.Lock()
	defer s.staging.Unlock()
	if s.copied {
		return nil
	}
	c, runs := s.executor()
	if c == nil {
		return fmt.Errorf("%s is not there for a native container: it is copied from the pod's wait container, in which our program does not run; "+
			"the annotation %s of the pod leaves all of this to the real argoexec", executor.Argoexec, executorAnnotation)
	}
	if err := c.copyArgoexec(ctx, runs); err != nil {
		return fmt.Errorf("copy argoexec to %s for a native container: %w", executor.Argoexec, err)
	}
	s.copied = true
	return nil
}

// needsArgoexec reports whether a command runs argoexec from the pod's volume, itself or by a shell.
func needsArgoexec(args []string) bool {
	return slices.ContainsFunc(args, func(arg string) bool { return strings.Contains(arg, executor.Argoexec) })
}

// executor returns a container of the pod in which our program runs in the place of Argo's executor: wait, for init
// has ended when others are created.
func (s *service) executor() (*container, argoExecutor) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, of := range s.containers {
		c, ok := of.(*container)
		if !ok {
			continue
		}
		if runs, ok := c.init.payload.(argoExecutor); ok && c.init.now() == running {
			return c, runs
		}
	}
	return nil, argoExecutor{}
}

// copyArgoexec runs our program in the container to copy argoexec, and waits for the result.
func (c *container) copyArgoexec(ctx context.Context, runs argoExecutor) error {
	process := *c.spec.Process
	process.Args, process.Terminal = []string{"argoexec", executor.StageVerb}, false
	runs.process = &process
	p := newProcess(c, stageID, added, &process, stageCommand{runs}, stdio.Names{})
	if err := c.addExec(p); err != nil {
		return err
	}
	err := c.startExec(ctx, p)
	if err == nil {
		// It has nothing more to do. A neighbour that shares the pid namespace may have stopped it.
		_ = p.signal(unix.SIGKILL) // fails only for one that has ended
		ctx, cancel := context.WithTimeout(ctx, abortLimit)
		defer cancel()
		err = p.await(ctx, phase.isOver)
	}
	if _, deleteErr := c.deleteExec(ctx, p); deleteErr != nil {
		c.daemon.log.WithError(deleteErr).WithField("container", c.id).Warn("remove the process that copied argoexec: it stays until the container ends")
	}
	return err
}

// stageCommand is our program when it copies argoexec. It reports the result.
type stageCommand struct{ argoExecutor }

func (stageCommand) started(ctx context.Context, w *worker) error {
	stop := w.readUntil(ctx)
	defer stop()
	report, err := w.control.Report()
	return errors.Join(err, report.Err())
}

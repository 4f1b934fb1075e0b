package shim

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/containerd/errdefs"
)

// phase is a stage in the life of a process.
type phase int

const (
	added     phase = iota // an exec without a worker yet
	launching              // its worker is being launched
	waiting                // the worker loads its payload, and waits for the start message
	starting               // the worker has been sent the start message
	running                // its start has been published
	failed                 // it will not run: its worker is being killed
	ended                  // its exit status is known
	deleting               // its resources are being released
)

// steps are the legal steps. The step back from deleting is for a deletion that has failed.
var steps = map[phase][]phase{
	added:     {launching, deleting},
	launching: {waiting, ended},
	waiting:   {starting, failed, ended},
	starting:  {running, failed},
	running:   {ended},
	failed:    {ended},
	ended:     {deleting},
	deleting:  {ended},
}

// String returns the phase in the words of the stock shim's errors, which knows fewer.
func (f phase) String() string {
	return [...]string{"created", "running", "created", "running", "running", "stopped", "stopped", "deleted"}[f]
}

// errRunning reports that a process must end before it can be deleted. As from the stock shim, it has no
// errdefs kind.
var errRunning = errors.New("cannot delete a running process")

// illegal returns the error for a step that a process in phase f cannot take.
func (f phase) illegal(to phase) error {
	switch {
	case to == deleting && f != deleting:
		return errRunning
	case to == deleting:
		return fmt.Errorf("the process is being deleted: %w", errdefs.ErrFailedPrecondition)
	case to == ended:
		return fmt.Errorf("a %s process has no worker that could end: %w", f, errdefs.ErrInternal)
	}
	return fmt.Errorf("cannot start a %s process: %w", f, errdefs.ErrFailedPrecondition)
}

// step takes the process to a phase. No other code changes the phase. Of several concurrent calls one
// succeeds, and the others return the reason. The functions in with run under the same lock.
func (p *process) step(to phase, with ...func()) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !slices.Contains(steps[p.phase], to) {
		return p.phase.illegal(to)
	}
	p.phase = to
	p.begun = p.begun || to == running
	for _, set := range with {
		set()
	}
	close(p.changed)
	p.changed = make(chan struct{})
	return nil
}

// now returns the phase that the process is in.
func (p *process) now() phase {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.phase
}

// await waits until the process is in a wanted phase, or ctx ends.
func (p *process) await(ctx context.Context, wanted func(phase) bool) error {
	for {
		p.mu.Lock()
		phase, changed := p.phase, p.changed
		p.mu.Unlock()
		if wanted(phase) {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// isOver reports whether the end of a process in phase f is known.
func (f phase) isOver() bool { return f >= ended }

package shim

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/containerd/errdefs"
)

// phase is how far a process has come.
type phase int

const (
	added     phase = iota // an exec that nothing has been launched for
	launching              // its worker is being launched
	waiting                // the worker loads what it is to run, and waits for the word to start
	starting               // the worker has been given the word
	running                // its start has been told
	failed                 // it will not run: its worker is being killed
	ended                  // its end is known
	deleting               // what it held is being released
)

// steps are the legal ones. What leads back is a deletion that has failed.
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

// String is the phase in the words of the stock shim's errors, which knows fewer.
func (f phase) String() string {
	return [...]string{"created", "running", "created", "running", "running", "stopped", "stopped", "deleted"}[f]
}

// errRunning says that a process must end before it can be deleted. It is of no known kind, as from the
// stock shim.
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

// step takes the process to a phase. It is the only way there: of several calls at once
// one gets through, and the others are told why not. Each of with happens in the same instant.
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

// await waits until the process is in a phase that is wanted, or ctx ends.
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

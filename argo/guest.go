package argo

import (
	"context"
	"os"
	"syscall"
)

// Attempt is one run of the guest.
type Attempt struct {
	// Args are the guest's arguments, its file first.
	Args []string
	// Stdout and Stderr are what the guest writes to: the container's own, or
	// pipes when the output is captured. They are the caller's, and may be closed
	// once Start has returned.
	Stdout, Stderr *os.File
}

// Starter starts a guest. It is called once per attempt, never while a guest of
// an earlier attempt runs. An error counts as a failed attempt. The guest must
// live on when ctx ends: that is for Signal to do.
type Starter func(ctx context.Context, attempt Attempt) (Guest, error)

// Guest is a started guest.
type Guest interface {
	// Signal sends it a signal; SIGKILL ends it. An ended guest's error is
	// ignored.
	Signal(signal syscall.Signal) error
	// Wait waits for its end, once, and returns its exit code, or the signal that
	// ended it. An error means that neither is known.
	Wait() (code int, signal syscall.Signal, err error)
}

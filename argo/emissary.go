package argo

import (
	"context"
	"os"
	"syscall"
)

// VolumePath is where Argo mounts its volume in every container of a pod.
const VolumePath = "/var/run/argo"

// Emissary is argoexec's part in one container.
type Emissary struct {
	Command
	// Env is the container's environment, which says what Argo expects.
	Env []string
	// Volume is the directory, of this process, that holds what Argo mounts at
	// VolumePath. It must be writable.
	Volume string
	// Root is the container's root directory; all paths of templates lie below it.
	Root string
	// Dir is the container's working directory, seen from Root.
	Dir string
	// Stdout and Stderr are the container's own. The log goes to Stderr.
	Stdout, Stderr *os.File
	// Signals are those sent to the container. They are passed on to the guest.
	Signals <-chan syscall.Signal
	// Start starts the guest.
	Start Starter
}

// Run does what Argo expects around the guest, which it runs as often as the
// template says, and returns the container's exit code: the guest's, 128 plus the
// signal that ended it, or one of Argo's for a failure of its own (see Exit…).
// Errors are logged. Run clears the process's umask, as argoexec does: other
// users of the pod must be able to write what it makes. When ctx ends, so does
// the guest.
func (e *Emissary) Run(ctx context.Context) int { return ExitFailure }

// Exit codes that are not the guest's.
const (
	// ExitFailure is for whatever went wrong before or after the guest.
	ExitFailure = 64
	// ExitNotReady is for what Argo's supervisor, or the staging of its
	// artifacts, did wrong in a pod without init containers (Argo 4.1).
	ExitNotReady = 65
)

// WriteExitCode records the exit code of a container whose emissary has died, so that
// Argo's other containers do not wait for it. volume is the directory that is
// mounted at VolumePath, container the value of ARGO_CONTAINER_NAME. A code that
// is there already stays.
func WriteExitCode(volume, container string, code int) error { return nil }

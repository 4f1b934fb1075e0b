package shim

import (
	"runtime/debug"
	"time"
)

// calmAfter is how long the daemon waits after a create before it returns memory. Short-lived containers are
// gone by then, and their daemon with them.
const calmAfter = time.Second

// newCalm returns the timer for settle, stopped.
func newCalm() *time.Timer {
	calm := time.AfterFunc(calmAfter, rest)
	calm.Stop()
	return calm
}

// settle makes the daemon return the memory that creating a container took, once no container has been
// created for calmAfter. Collecting garbage earlier would cost a container that ends soon more than it gains;
// collecting later would hold memory that belongs to guests.
func (s *service) settle() { s.calm.Reset(calmAfter) }

// rest frees memory that the daemon does not need while it waits. From here on it allocates little, so it
// collects more often than usual.
func rest() {
	debug.SetGCPercent(50)
	debug.FreeOSMemory()
}

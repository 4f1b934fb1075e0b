package shim

import (
	"runtime/debug"
	"time"
)

// calmAfter is how long after a container's creation the daemon takes it that
// this one stays. Short-lived ones are gone by then, and their daemon with them.
const calmAfter = time.Second

// newCalm returns the timer for settle, stopped.
func newCalm() *time.Timer {
	calm := time.AfterFunc(calmAfter, rest)
	calm.Stop()
	return calm
}

// settle has the daemon give back what creating a container took, once nothing
// has been created for a while. Collecting garbage earlier would cost a container
// that ends soon more than it gains, and later would hold memory that belongs to
// guests.
func (s *service) settle() { s.calm.Reset(calmAfter) }

// rest frees what the daemon does not need for waiting. From here on it
// allocates little, so it collects more often than usual.
func rest() {
	debug.SetGCPercent(50)
	debug.FreeOSMemory()
}

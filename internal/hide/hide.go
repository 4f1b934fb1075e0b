// Package hide keeps a process from being traced, read and dumped.
package hide

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// Process keeps processes without CAP_SYS_PTRACE from tracing any thread of this one, from
// reading what /proc tells of it and from taking its descriptors, and those of its children
// until they execute a program (PR_SET_DUMPABLE(2const), ptrace(2)). It leaves no core
// dump when it crashes. A change of credentials, by any thread, may undo that.
func Process() error {
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("hide the process from others: %w", err)
	}
	return nil
}

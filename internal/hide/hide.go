// Package hide keeps a process from being traced, read and dumped.
package hide

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// Process keeps processes without CAP_SYS_PTRACE from tracing any thread of this process,
// from reading its files in /proc and from taking its descriptors. The same holds for its
// children until they execute a program (PR_SET_DUMPABLE(2const), ptrace(2)). The process
// leaves no core dump when it crashes. A change of credentials, by any thread, may undo
// this.
func Process() error {
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("hide the process from others: %w", err)
	}
	return nil
}

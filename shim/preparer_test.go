package shim

import (
	"fmt"
	"os"
	"os/exec"
	"testing"

	"golang.org/x/sys/unix"
)

// Only a daemon of our own pid namespace can be told to be gone: nodes that share a
// machine must not end each other's preparers.
func TestOrphans(t *testing.T) {
	gone := exec.Command("true")
	if err := gone.Run(); err != nil {
		t.Fatal(err)
	}
	dead := gone.Process.Pid
	unreaped := zombie(t)
	for id, want := range map[string]bool{
		fmt.Sprintf("%d-%d-x", os.Getpid(), pidNamespace()): false,
		fmt.Sprintf("%d-%d-x", dead, pidNamespace()):        true,
		fmt.Sprintf("%d-%d-x", unreaped, pidNamespace()):    true,
		fmt.Sprintf("%d-%d-x", dead, pidNamespace()+1):      false,
		fmt.Sprintf("%d-x", dead):                           false,
		"x":                                                 false,
	} {
		if got := isOrphan(id); got != want {
			t.Errorf("%s: got %t", id, got)
		}
	}
	if pidNamespace() == 0 {
		t.Error("our own pid namespace has no number")
	}
}

// zombie returns the id of a process that has ended and is waited for only when the
// test ends, as the daemon's own parent may be late to do.
func zombie(t *testing.T) int {
	t.Helper()
	cmd := exec.Command("true")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Wait() })
	if err := unix.Waitid(unix.P_PID, cmd.Process.Pid, nil, unix.WEXITED|unix.WNOWAIT, nil); err != nil {
		t.Fatal(err)
	}
	return cmd.Process.Pid
}

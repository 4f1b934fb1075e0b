package shim

import (
	"fmt"
	"os"
	"os/exec"
	"testing"
)

// Only a daemon of our own pid namespace can be told to be gone: nodes that share a
// machine must not end each other's preparers.
func TestOrphans(t *testing.T) {
	gone := exec.Command("true")
	if err := gone.Run(); err != nil {
		t.Fatal(err)
	}
	dead := gone.Process.Pid
	for id, want := range map[string]bool{
		fmt.Sprintf("%d-%d-x", os.Getpid(), pidNamespace()): false,
		fmt.Sprintf("%d-%d-x", dead, pidNamespace()):        true,
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

package sandbox

import (
	"fmt"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// Each worker has a session keyring of its own, different from that of the launching process.
func TestSessionKeyring(t *testing.T) {
	program := buildTestdata(t, "keyring")
	ours, err := unix.KeyctlGetKeyringID(unix.KEY_SPEC_SESSION_KEYRING, false)
	if err != nil {
		t.Fatal(err)
	}
	seen := map[int]bool{ours: true}
	for range 2 {
		spec := probed(t)
		output, input, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		defer output.Close()
		s, err := New(t.TempDir(), "")
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		if err := s.MountRootfs(nil, spec.Root, ""); err != nil {
			t.Fatal(err)
		}
		child, err := s.Launch(t.Context(), Launch{
			Spec: spec, Process: spec.Process, Worker: open(t, program), Argv: []string{"keyring"},
			Files: []*os.File{open(t, os.DevNull), input, input},
		})
		input.Close()
		if err != nil {
			t.Fatal(err)
		}
		defer end(t, child)
		var id int
		if _, err := fmt.Fscan(output, &id); err != nil {
			t.Fatal(err)
		}
		if seen[id] {
			t.Errorf("the worker has keyring %d, which somebody else has: %v", id, seen)
		}
		seen[id] = true
	}
}

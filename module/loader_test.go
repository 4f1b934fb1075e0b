package module

import (
	"os/exec"
	"strings"
	"testing"
)

// Package module depends on no task API, and not on package shim.
func TestKnowsNothingOfTasks(t *testing.T) {
	list, err := exec.Command("go", "list", "-deps", ".").Output()
	if err != nil {
		t.Fatal(err)
	}
	for name := range strings.Lines(string(list)) {
		for _, alien := range []string{"ttrpc", "google.golang.org/grpc", "runtime/task", "containerd-shim-wasm/shim"} {
			if strings.Contains(name, alien) {
				t.Errorf("package module depends on %s", name)
			}
		}
	}
}

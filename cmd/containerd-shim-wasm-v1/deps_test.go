package main

import (
	"os/exec"
	"strings"
	"testing"
)

// The daemon asks no store and no service for credentials, whatever a pod names: nothing in its program speaks HTTP. Such
// requests come from a program in the pod's network.
func TestProgramSpeaksNoHTTP(t *testing.T) {
	list, err := exec.CommandContext(t.Context(), "go", "list", "-deps", ".").Output()
	if err != nil {
		t.Fatal(err)
	}
	for name := range strings.FieldsSeq(string(list)) {
		if name == "net/http" || strings.Contains(name, "minio") {
			t.Errorf("the daemon's program has %s", name)
		}
	}
}

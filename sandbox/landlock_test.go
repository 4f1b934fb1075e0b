package sandbox

import (
	"encoding/json"
	"os"
	"slices"
	"syscall"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// underLandlock returns the expected result of an attempt that Landlock denies from version since of its
// interface on. With an older version, or without Landlock, that is otherwise.
func underLandlock(since int, otherwise string) string {
	if landlockVersion() >= since {
		return "EACCES"
	}
	return otherwise
}

// A worker without a container, the preparer, sees no file except its own program. With Landlock it cannot
// even list its root.
func TestWorkerWithoutContainer(t *testing.T) {
	probe := open(t, buildProbe(t))
	output, input, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer output.Close()
	defer input.Close()
	s, err := New(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	spec := &specs.Spec{
		Process: &specs.Process{User: specs.User{UID: 65534, GID: 65534}},
		Linux:   &specs.Linux{Namespaces: []specs.LinuxNamespace{{Type: specs.PIDNamespace}, {Type: specs.NetworkNamespace}}},
	}
	child, err := s.Launch(t.Context(), Launch{Spec: spec, Process: spec.Process, Worker: probe, Argv: []string{"probe"}, Files: []*os.File{input, input, input}})
	if err != nil {
		t.Fatal(err)
	}
	defer child.Close()
	input.Close()
	var told report
	decodeErr := json.NewDecoder(output).Decode(&told)
	var status syscall.WaitStatus
	if _, err := syscall.Wait4(child.PID, &status, 0, nil); err != nil {
		t.Fatal(err)
	}
	if decodeErr != nil {
		t.Fatal(decodeErr)
	}
	want := []string{"worker"}
	if landlockVersion() >= 2 {
		want = []string{"open /: permission denied"}
	}
	if !slices.Equal(told.Root, want) || told.NoNewPrivs != 1 || told.Bounding != 0 {
		t.Errorf("its root shows %q, want %q; no_new_privs %d, bounding set %#x", told.Root, want, told.NoNewPrivs, told.Bounding)
	}
}

package sandbox

import (
	"errors"
	"fmt"
	"os"
	"testing"
)

// A process that may trace a worker can make it fork. A forked process has the worker's cgroup and limits
// only if the worker had them before its execve. Until then no process may trace it.
func TestLimitComesBeforeTheWorker(t *testing.T) {
	self, err := os.Readlink("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	asked := false
	limit := func(pid int) error {
		asked = true
		program, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid))
		if err != nil || program != self {
			t.Errorf("the child to be limited is %s, %v", program, err)
		}
		return nil
	}
	probeBy(t, probed(t), Launch{Worker: open(t, buildProbe(t)), Limit: limit})
	if !asked {
		t.Error("nobody limited the child")
	}
}

// A child that cannot be limited does not execute its worker and is removed.
func TestChildThatCannotBeLimited(t *testing.T) {
	refused := errors.New("no such cgroup")
	var born int
	spec := probed(t)
	s, err := New(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := s.MountRootfs(nil, spec.Root, ""); err != nil {
		t.Fatal(err)
	}
	null := open(t, os.DevNull)
	_, err = s.Launch(t.Context(), Launch{
		Spec: spec, Process: spec.Process, Worker: open(t, "/bin/true"), Argv: []string{"true"}, Files: []*os.File{null, null, null},
		Limit: func(pid int) error { born = pid; return refused },
	})
	if !errors.Is(err, refused) {
		t.Errorf("got %v", err)
	}
	program, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", born))
	if err == nil {
		t.Errorf("the child is there and runs %s", program)
	}
}

package sandbox

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/wasmshim/containerd-shim-wasm/module/filelock"
)

// A worker holds the lock on its module from its start to its end. The launcher may close the file before.
func TestWorkerHoldsItsModule(t *testing.T) {
	module := filepath.Join(t.TempDir(), "module")
	if err := os.WriteFile(module, []byte("code"), 0o444); err != nil {
		t.Fatal(err)
	}
	s, err := New(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	spec := probed(t)
	if err := s.MountRootfs(nil, spec.Root, ""); err != nil {
		t.Fatal(err)
	}
	input, hold, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer input.Close()
	opened := open(t, module)
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	// The program, cat, waits for the end of its input.
	child, err := s.Launch(t.Context(), Launch{
		Spec: spec, Process: spec.Process, Worker: open(t, "/bin/busybox"), Code: opened,
		Argv: []string{"cat"}, Files: []*os.File{input, null, null},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer child.Close()
	if err := opened.Close(); err != nil {
		t.Fatal(err)
	}
	wantInUse(t, module, true)
	if err := hold.Close(); err != nil {
		t.Fatal(err)
	}
	var status syscall.WaitStatus
	if _, err := syscall.Wait4(child.PID, &status, 0, nil); err != nil || status != 0 {
		t.Fatalf("the worker ended with %#x, %v", status, err)
	}
	wantInUse(t, module, false)
}

func wantInUse(t *testing.T, module string, want bool) {
	t.Helper()
	if used, err := filelock.InUse(module); used != want || err != nil {
		t.Errorf("the module is in use: %v, %v; want %v", used, err, want)
	}
}

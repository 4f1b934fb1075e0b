package sandbox

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// lockable tells whether nobody holds a lock on the file.
func lockable(t *testing.T, path string) bool {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if err != nil && !errors.Is(err, unix.EWOULDBLOCK) {
		t.Fatal(err)
	}
	return err == nil
}

// A worker holds its module from its birth to its end, whatever it does and whatever its launcher does.
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
	child, err := s.Launch(Launch{
		Spec: spec, Process: spec.Process, Worker: open(t, "/bin/busybox"), Module: opened,
		Argv: []string{"cat"}, Files: []*os.File{input, null, null},
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := opened.Close(); err != nil {
		t.Fatal(err)
	}
	if lockable(t, module) {
		t.Error("the module of a running worker is not locked")
	}
	if err := hold.Close(); err != nil {
		t.Fatal(err)
	}
	var status syscall.WaitStatus
	if _, err := syscall.Wait4(child.PID, &status, 0, nil); err != nil || status != 0 {
		t.Fatalf("the worker ended with %#x, %v", status, err)
	}
	if !lockable(t, module) {
		t.Error("the module is locked by nobody who lives")
	}
}

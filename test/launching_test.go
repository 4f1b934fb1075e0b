package test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/containerd/containerd/v2/pkg/oci"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/wasmshim/containerd-shim-wasm/internal/testnode"
)

// startIntruder starts sandbox/testdata/intruder as user 0 of a pid namespace of its own, which it returns the path
// of. caught is how many children of the daemon it has stopped before they executed their program; the test fails
// for one that it has got anything of.
func startIntruder(t *testing.T) (namespace string, caught *atomic.Int64) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "intruder")
	build := exec.Command("go", "build", "-o", path, "../sandbox/testdata/intruder")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if text, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the intruder: %v\n%s", err, text)
	}
	// What the daemon is called, and its children are until they execute the worker (comm in proc_pid_comm(5)).
	const unborn = "containerd-shim"
	intruder := exec.Command(path, "0", unborn)
	intruder.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID | syscall.CLONE_NEWNS}
	intruder.Stderr = os.Stderr
	output, err := intruder.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := intruder.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(output)
	if !lines.Scan() {
		t.Error("the intruder does not start")
	}
	caught = new(atomic.Int64)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for lines.Scan() {
			var child struct{ Reached []string }
			if err := json.Unmarshal(lines.Bytes(), &child); err != nil || len(child.Reached) > 0 {
				t.Errorf("of a child the intruder says %s", lines.Text())
			}
			caught.Add(1)
		}
	}()
	t.Cleanup(func() {
		_ = intruder.Process.Kill()
		<-done
		_ = intruder.Wait()
	})
	return fmt.Sprintf("/proc/%d/ns/pid", intruder.Process.Pid), caught
}

// A neighbour in a shared pid namespace gets nothing of the daemon's children, though it stops them, and all of
// them run in the end.
func TestLaunchesBesideAnIntruder(t *testing.T) {
	eachVersionWithTasks(t, func(t *testing.T, node *testnode.Node) {
		namespace, caught := startIntruder(t)
		shared := oci.WithLinuxNamespace(specs.LinuxNamespace{Type: specs.PIDNamespace, Path: namespace})
		main := asWasm.run(t, node, "sleep", "sleeping", shared)
		for round := 0; round < 20 || caught.Load() < 5; round++ {
			e := main.exec([]string{"/hello.wasm"}, nil)
			if code, got := main.finish(e); code != 0 || got != "hello from C\n" {
				t.Fatalf("exec %d: %d, %q", round, code, got)
			}
		}
		asWasm.run(t, node, "sleep", "sleeping", shared)
	})
}

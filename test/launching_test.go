package test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/containerd/containerd/v2/pkg/oci"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/wasmshim/containerd-shim-wasm/internal/repo"
	"github.com/wasmshim/containerd-shim-wasm/internal/testnode"
)

// startIntruder starts sandbox/testdata/intruder as user 0 of a new pid namespace, in a mode of it, and returns the path
// of that namespace. caught counts the children of the daemon that the intruder has stopped before they executed their
// program. The test fails if the intruder has got access to anything of such a child.
func startIntruder(t *testing.T, mode ...string) (namespace string, caught *atomic.Int64) {
	t.Helper()
	path, err := repo.Program("sandbox/testdata/intruder", t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	// The process name of the daemon, and of its children until they execute the worker (comm in
	// proc_pid_comm(5)).
	const unborn = "containerd-shim"
	intruder := exec.Command(path, append([]string{"0", unborn}, mode...)...)
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

// launches is the number of launches of each kind on a version of containerd. Each version runs the same test.
func launches(version string) int {
	if testing.Short() {
		return 5
	}
	if !testnode.Narrowed() && version == testnode.Versions()[0] {
		return 200
	}
	return 20
}

// A neighbour in a shared pid namespace can stop the daemon's children, but gets access to nothing of theirs.
// All of them run in the end: containers, execs and pause containers.
func TestLaunchesBesideAnIntruder(t *testing.T) {
	eachVersionWithTasks(t, func(t *testing.T, node *testnode.Node) {
		namespace, caught := startIntruder(t)
		shared := oci.WithLinuxNamespace(specs.LinuxNamespace{Type: specs.PIDNamespace, Path: namespace})
		main := asWasm.run(t, node, "sleep", "sleeping", shared)
		const enough = 5
		repeat := func(kind string, launch func()) {
			before := caught.Load()
			rounds := 0
			for rounds < launches(node.Version) || caught.Load() < before+enough {
				launch()
				rounds++
			}
			t.Logf("of %d %s the intruder has caught %d", rounds, kind, caught.Load()-before)
		}
		repeat("execs", func() {
			if code, got := main.finish(main.exec([]string{"/hello.wasm"}, nil)); code != 0 || got != "hello from C\n" {
				t.Fatalf("%d, %q", code, got)
			}
		})
		repeat("containers", func() {
			asWasm.runToItsEnd(t, node, asWasm.programs["hello"], "hello from C\n", shared)
		})
		repeat("pause containers", func() {
			asNative.runToItsEnd(t, node, []string{"echo", "hello"}, "hello\n", shared, asPause)
		})
	})
}

// runToItsEnd runs a container of our shim, checks its output, and removes it.
func (w way) runToItsEnd(t *testing.T, node *testnode.Node, args []string, want string, opts ...oci.SpecOpts) {
	t.Helper()
	k := w.createArgs(t, node, args, opts...)
	defer k.remove()
	k.start()
	k.expectCode(0)
	k.output.await(t, want)
	if stocks := k.stocks(); len(stocks) > 0 {
		t.Errorf("stock shims %v", stocks)
	}
}

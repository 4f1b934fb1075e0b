//go:build systemd

package test

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/wasmshim/containerd-shim-wasm/internal/testguest"
	"github.com/wasmshim/containerd-shim-wasm/internal/testnode"
)

// TestSystemdDriver runs where systemd is process 1 (hack/cgroup2/test.sh). A container whose cgroup systemd
// makes is in the requested scope and under its limit. The scope is removed with the container.
func TestSystemdDriver(t *testing.T) {
	node := nodes.Get(t, testnode.DefaultVersion)
	node.NoLeaks(t)
	const ref, id, limit = "example.com/test/systemd:latest", "scoped", 64 << 20
	node.Import(t, testguest.Wasm(t, ref, "probe", "loop"))
	args := []string{"run", "--detach", "--runtime", runtime, "--cgroup", "system.slice:wasm:" + id, "--memory-limit", fmt.Sprint(limit), ref, id}
	if r := node.Ctr(t, args...); r.Code != 0 {
		t.Fatalf("ctr run: %s", r.Stderr)
	}
	container, err := node.Client(t).LoadContainer(context.Background(), id)
	if err != nil {
		t.Fatal(err)
	}
	task, err := container.Task(context.Background(), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if r := node.Ctr(t, "task", "rm", "--force", id); r.Code != 0 {
			t.Errorf("ctr task rm: %s", r.Stderr)
		}
		if r := node.Ctr(t, "container", "rm", id); r.Code != 0 {
			t.Errorf("ctr container rm: %s", r.Stderr)
		}
	})
	const scope = "/system.slice/wasm-" + id + ".scope"
	if got := read(t, fmt.Sprintf("/proc/%d/cgroup", task.Pid())); got != "0::"+scope {
		t.Errorf("worker is in cgroup %q, want %q", got, scope)
	}
	if got := read(t, "/sys/fs/cgroup"+scope+"/memory.max"); got != fmt.Sprint(limit) {
		t.Errorf("memory.max is %s, want %d", got, limit)
	}
}

// TestSystemdOOM shows that the shim publishes an out-of-memory kill although systemd removes the scope at
// once, and with it the kernel's counter.
func TestSystemdOOM(t *testing.T) {
	node := nodes.Get(t, testnode.DefaultVersion)
	node.NoLeaks(t)
	const ref, id = "example.com/test/systemd-oom:latest", "oom"
	node.Import(t, testguest.Wasm(t, ref, "probe", "fill", "/scratch/file"))
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	events, failed := node.Client(t).Subscribe(ctx, `topic=="/tasks/oom"`)
	r := node.Ctr(t, "run", "--rm", "--runtime", runtime, "--cgroup", "system.slice:wasm:"+id, "--memory-limit", fmt.Sprint(48<<20),
		"--mount", "type=tmpfs,src=tmpfs,dst=/scratch", ref, id)
	if r.Code != 137 {
		t.Fatalf("exit code %d, want 137: %s", r.Code, r.Stderr)
	}
	select {
	case <-events:
	case err := <-failed:
		t.Fatalf("no OOM event: %v", err)
	}
}

func read(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(data))
}

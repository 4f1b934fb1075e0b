package test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/wasmshim/containerd-shim-wasm/internal/testguest"
	"github.com/wasmshim/containerd-shim-wasm/internal/testnode"
)

// A native neighbour that sees a Wasm container's processes takes every lock on the container's module that it
// can get, and lives longer than the container. This blocks nobody else: containers with that module and with
// new ones start, and the operator can list and empty the cache.
func TestLocksOnAModuleHoldNobodyUp(t *testing.T) {
	const shared, fresh, holder = "example.com/hostage/shared:latest", "example.com/hostage/fresh:latest", "example.com/hostage/holder:latest"
	images := []string{
		testguest.Image(t, shared, testguest.ImageOpts{Files: map[string]string{"/app.wasm": ownGuest(t, "probe")}, Entrypoint: []string{"/app.wasm"}}),
		testguest.Image(t, fresh, testguest.ImageOpts{Files: map[string]string{"/app.wasm": ownGuest(t, "hello-c")}, Entrypoint: []string{"/app.wasm"}}),
		testguest.Image(t, holder, testguest.ImageOpts{Files: map[string]string{"/holder": testguest.Build(t, "holder")}, Entrypoint: []string{"/holder"}}),
	}
	nodes.EachVersion(t, func(t *testing.T, node *testnode.Node) {
		for _, image := range images {
			node.Import(t, image)
		}
		node.NoLeaks(t)
		cache, file := newCache(t)
		short := func() {
			t.Helper()
			got := node.Ctr(t, "run", "--rm", "--runtime", runtime, "--runtime-config-path", file, shared, "short", "/app.wasm", "exit", "0")
			if got != (testnode.Result{}) {
				t.Errorf("the module's own image: %+v", got)
			}
		}
		// From then on this and every later container maps the blob in the content store.
		if !untilKept(t, cache, short, func() bool { return isKept(t, cache) }) {
			t.Fatal("the image does not keep the module")
		}
		log := filepath.Join(t.TempDir(), "log")
		detach := func(id string, args ...string) {
			t.Helper()
			t.Cleanup(func() {
				node.Ctr(t, "tasks", "delete", "--force", id)
				node.Ctr(t, "containers", "delete", id)
			})
			if got := node.Ctr(t, append([]string{"run", "--detach"}, args...)...); got.Code != 0 {
				t.Fatalf("%s: %+v", id, got)
			}
		}
		detach("holder", "--runtime", stockShim, "--cap-add", "CAP_SYS_PTRACE", "--log-uri", "file://"+log, holder, "holder")
		logged := func(text string) bool {
			content, _ := os.ReadFile(log)
			return strings.Contains(string(content), text)
		}
		detach("long", "--runtime", runtime, "--runtime-config-path", file, "--with-ns", "pid:"+pidNamespaceOf(t, node, "holder"), shared, "long", "/app.wasm", "sleep", "1000")
		if !eventually(func() bool { return logged("write lock -1") }) {
			t.Fatal("the holder has no module, or has got a lock that only a writer can have")
		}
		node.Ctr(t, "tasks", "delete", "--force", "long")
		if !eventually(func() bool { return logged("lease") }) {
			t.Fatal("the holder has no lease")
		}

		if got := node.Ctr(t, "run", "--rm", "--runtime", runtime, "--runtime-config-path", file, fresh, "fresh"); got.Code != 0 {
			t.Errorf("a new module: %+v", got)
		}
		if text := inTime(t, "cache", "ls", "--config", file); !strings.Contains(text, "\n2 modules") {
			t.Errorf("listed:\n%s", text)
		}
		short()
		inTime(t, "cache", "prune", "--all", "--config", file)
	})
}

// inTime is shimVerb with a time limit.
func inTime(t *testing.T, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	output, err := exec.CommandContext(ctx, shimCommand(t).Path, args...).CombinedOutput()
	if err != nil {
		t.Errorf("%s: %v: %s", strings.Join(args, " "), err, output)
	}
	return string(output)
}

// pidNamespaceOf returns the path of a task's pid namespace.
func pidNamespaceOf(t *testing.T, node *testnode.Node, id string) string {
	t.Helper()
	for line := range strings.Lines(node.Ctr(t, "tasks", "list").Stdout) {
		var pid int
		if fields := strings.Fields(line); len(fields) > 1 && fields[0] == id {
			if _, err := fmt.Sscan(fields[1], &pid); err == nil {
				return fmt.Sprintf("/proc/%d/ns/pid", pid)
			}
		}
	}
	t.Fatalf("there is no task %s", id)
	return ""
}

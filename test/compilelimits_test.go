package test

import (
	"crypto/rand"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/wasmshim/containerd-shim-wasm/internal/testguest"
	"github.com/wasmshim/containerd-shim-wasm/internal/testnode"
)

// memoryLimit returns the memory limit of a cgroup, or "" if the cgroup is gone.
func memoryLimit(cgroup string) string {
	for _, path := range []string{"/sys/fs/cgroup/memory" + cgroup + "/memory.limit_in_bytes", "/sys/fs/cgroup" + cgroup + "/memory.max"} {
		if limit, err := os.ReadFile(path); err == nil {
			return strings.TrimSpace(string(limit))
		}
	}
	return ""
}

// The shim compiles a container's modules one at a time, in a cgroup beside the container's, within the
// container's limits.
func TestCompilingIsTheContainersWork(t *testing.T) {
	const ref, execs, limit = "example.com/compilelimits/six:latest", 6, 32 << 20
	files := map[string]string{"/app.wasm": testguest.Build(t, "probe")}
	for i := range execs {
		path, err := testguest.Keep(fmt.Sprintf("compiled-%d.wasm", i), testguest.Big(32<<10+i<<12))
		if err != nil {
			t.Fatal(err)
		}
		files[fmt.Sprintf("/%d.wasm", i)] = path
	}
	image := testguest.Image(t, ref, testguest.ImageOpts{Files: files, Entrypoint: []string{"/app.wasm"}})
	nodes.EachVersion(t, func(t *testing.T, node *testnode.Node) {
		node.Import(t, image)
		node.NoLeaks(t)
		_, file := newCache(t)
		parent := "/compilelimits-" + rand.Text()
		t.Cleanup(func() { removeCgroups(t, parent) })
		got := node.Ctr(t, "run", "--detach", "--cgroup", parent+"/container", "--memory-limit", fmt.Sprint(limit), "--cpus", "0.2",
			"--runtime", runtime, "--runtime-config-path", file, ref, "six", "/app.wasm", "sleep", "1000")
		if got.Code != 0 {
			t.Fatalf("%+v", got)
		}
		t.Cleanup(func() {
			node.Ctr(t, "tasks", "delete", "--force", "six")
			node.Ctr(t, "containers", "delete", "six")
		})
		done := make(chan struct{})
		go func() {
			defer close(done)
			var all sync.WaitGroup
			for i := range execs {
				all.Go(func() {
					id := fmt.Sprint(i)
					if got := node.Ctr(t, "tasks", "exec", "--exec-id", id, "six", "/"+id+".wasm"); got != (testnode.Result{}) {
						t.Errorf("exec %d: %+v", i, got)
					}
				})
			}
			all.Wait()
		}()
		seen := map[string]string{}
		for running := true; running; {
			select {
			case <-done:
				running = false
			default:
			}
			limited := 0
			for _, p := range preparers(t) {
				if max := memoryLimit(p.cgroup); strings.HasPrefix(filepath.Base(p.cgroup), "wasm-compile-") && max != "" {
					limited++
					seen[p.cgroup] = max
				}
			}
			if limited > 1 {
				t.Fatalf("%d modules of a container are compiled at once", limited)
			}
		}
		if len(seen) == 0 {
			t.Error("no preparer was seen")
		}
		for cgroup, max := range seen {
			// The process is already in its cgroup when the limit is set.
			if filepath.Dir(cgroup) != parent || max != fmt.Sprint(limit) && !unlimited(max) {
				t.Errorf("a preparer in %s has %s bytes", cgroup, max)
			}
		}
	})
}

// unlimited reports whether limit is the default of a new cgroup.
func unlimited(limit string) bool { return limit == "max" || len(limit) > 15 }

// removeCgroups removes a cgroup that was made implicitly, as the parent of a named one.
func removeCgroups(t *testing.T, name string) {
	t.Helper()
	for _, pattern := range []string{"/sys/fs/cgroup" + name, "/sys/fs/cgroup/*" + name} {
		paths, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range paths {
			if err := os.Remove(path); err != nil {
				t.Error(err)
			}
		}
	}
}

// A module that needs more memory to compile than its container has is refused with a clear error. It can be
// compiled ahead of time.
func TestModuleThatNeedsMoreThanItsContainerHas(t *testing.T) {
	const ref = "example.com/compilelimits/hungry:latest"
	big, err := testguest.Keep("big.wasm", testguest.Big(4<<20))
	if err != nil {
		t.Fatal(err)
	}
	image := testguest.Image(t, ref, testguest.ImageOpts{Files: map[string]string{"/app.wasm": big}, Entrypoint: []string{"/app.wasm"}})
	nodes.EachVersion(t, func(t *testing.T, node *testnode.Node) {
		node.Import(t, image)
		node.NoLeaks(t)
		cache, file := newCache(t)
		run := func() testnode.Result {
			return node.Ctr(t, "run", "--rm", "--memory-limit", fmt.Sprint(32<<20), "--runtime", runtime, "--runtime-config-path", file, ref, "hungry")
		}
		got := run()
		wantAll(t, got.Stderr, []string{"/app.wasm needs more than 33554432 bytes of memory to compile", "the memory limit of its container", "cache warm"})
		noTask(t, node)
		emptyCache(t, cache)
		shimVerb(t, "cache", "warm", "--address", node.Address(), "--namespace", node.Namespace, "--config", file, ref)
		if got := run(); got != (testnode.Result{}) {
			t.Errorf("compiled ahead: %+v", got)
		}
	})
}

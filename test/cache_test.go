package test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/wasmshim/containerd-shim-wasm/internal/testguest"
	"github.com/wasmshim/containerd-shim-wasm/internal/testnode"
)

// cacheImages are two images that have nothing in common but the content of one file.
var cacheImages = map[string]testguest.ImageOpts{
	"example.com/cache/first:latest":  {Entrypoint: []string{"/app.wasm"}, Texts: map[string]string{"/first": "1"}},
	"example.com/cache/second:latest": {Entrypoint: []string{"/bin/other.wasm"}, Texts: map[string]string{"/second": "2"}},
}

// A module is compiled once for all containers that run it, and their workers map the same file.
func TestModuleIsCompiledOnceAndShared(t *testing.T) {
	guest := testguest.Build(t, "probe")
	nodes.EachVersion(t, func(t *testing.T, node *testnode.Node) {
		for ref, opts := range cacheImages {
			opts.Files = map[string]string{opts.Entrypoint[0]: guest}
			node.Import(t, testguest.Image(t, ref, opts))
		}
		node.NoLeaks(t)
		cache := filepath.Join(t.TempDir(), "cache")
		file := shimConfig(t, fmt.Sprintf("cache_dir = %q", cache))
		var mapped []string
		var code unix.Stat_t
		for ref, opts := range cacheImages {
			id := "sleeper-" + fmt.Sprint(len(mapped))
			got := node.Ctr(t, "run", "--detach", "--runtime", runtime, "--runtime-config-path", file, ref, id, opts.Entrypoint[0], "sleep", "1000")
			t.Cleanup(func() {
				node.Ctr(t, "tasks", "delete", "--force", id)
				node.Ctr(t, "containers", "delete", id)
			})
			if got.Code != 0 {
				t.Fatalf("%+v", got)
			}
			now := compiledFile(t, cache)
			if len(mapped) > 0 && (now.Ino != code.Ino || now.Ctim != code.Ctim) {
				t.Error("the second container compiled the module again")
			}
			code = now
			mapped = append(mapped, mappedModule(t, taskPID(t, node, id)))
		}
		if want := fmt.Sprint(code.Ino); mapped[0] != want || mapped[1] != want {
			t.Errorf("the workers map the inodes %q, the cache holds %s", mapped, want)
		}
	})
}

// compiledFile is the one compiled module of a cache.
func compiledFile(t *testing.T, cache string) unix.Stat_t {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(cache, "*", "*.cwasm"))
	if err != nil || len(found) != 1 {
		t.Fatalf("compiled modules: %q, %v", found, err)
	}
	var st unix.Stat_t
	if err := unix.Stat(found[0], &st); err != nil {
		t.Fatal(err)
	}
	return st
}

func taskPID(t *testing.T, node *testnode.Node, id string) string {
	t.Helper()
	for line := range strings.Lines(node.Ctr(t, "tasks", "list").Stdout) {
		if fields := strings.Fields(line); len(fields) > 1 && fields[0] == id {
			return fields[1]
		}
	}
	t.Fatalf("no task %s", id)
	return ""
}

// mappedModule returns the inode of the compiled module that a worker maps executable.
func mappedModule(t *testing.T, pid string) string {
	t.Helper()
	maps, err := os.ReadFile("/proc/" + pid + "/maps")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(maps)) {
		// proc_pid_maps(5): address, permissions, offset, device, inode, path.
		f := strings.Fields(line)
		if len(f) == 6 && strings.Contains(f[1], "x") && (strings.HasSuffix(f[5], ".cwasm") || f[5] == "/module") {
			return f[4]
		}
	}
	t.Fatalf("the worker maps no compiled module:\n%s", maps)
	return ""
}

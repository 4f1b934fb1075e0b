package test

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/wasmshim/containerd-shim-wasm/internal/testguest"
	"github.com/wasmshim/containerd-shim-wasm/internal/testnode"
	"github.com/wasmshim/containerd-shim-wasm/module/cache"
)

// cacheImages are two images that have only the content of one file in common.
var cacheImages = map[string]testguest.ImageOpts{
	"example.com/cache/first:latest":  {Entrypoint: []string{"/app.wasm"}, Texts: map[string]string{"/first": "1"}},
	"example.com/cache/second:latest": {Entrypoint: []string{"/bin/other.wasm"}, Texts: map[string]string{"/second": "2"}},
}

// newCache returns the folder of a compile cache of the test's own and the path of a configuration that names
// it. The folder is removed when no process works on it any more.
func newCache(t *testing.T, settings ...string) (dir, file string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "wasm-cache-")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		// A shim that is ending may still start a keeper.
		var err error
		if !eventually(func() bool {
			if isNamed(t, dir) {
				return false
			}
			err = os.RemoveAll(dir)
			return err == nil
		}) {
			t.Errorf("the cache is still at work: %v", err)
		}
	})
	return dir, shimConfig(t, strings.Join(append(settings, fmt.Sprintf("cache_dir = %q", dir)), "\n"))
}

// replaceable are words in guests. Nothing depends on them.
var replaceable = map[string]string{"probe": "Illegal byte sequence", "hello-c": "from C"}

// ownGuest builds a guest whose compiled code no other test shares: it replaces some of its words.
func ownGuest(t *testing.T, name string) string {
	t.Helper()
	code, err := os.ReadFile(testguest.Build(t, name))
	if err != nil {
		t.Fatal(err)
	}
	words := replaceable[name]
	own := fmt.Sprintf("%x", sha256.Sum256([]byte(t.Name())))[:len(words)]
	if bytes.Count(code, []byte(words)) != 1 {
		t.Fatalf("guest %s does not hold %q once", name, words)
	}
	path := filepath.Join(t.TempDir(), "own.wasm")
	if err := os.WriteFile(path, bytes.Replace(code, []byte(words), []byte(own), 1), 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

// isNamed reports whether a process has the text among its arguments.
func isNamed(t *testing.T, text string) bool {
	t.Helper()
	paths, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range paths {
		if cmdline, err := os.ReadFile(path); err == nil && strings.Contains(string(cmdline), text) {
			return true
		}
	}
	return false
}

// isIdle reports whether no process works on a cache any more.
func isIdle(t *testing.T, dir string) bool {
	t.Helper()
	return eventually(func() bool { return !isNamed(t, dir) })
}

// untilKept runs containers to their end, one after the other, until kept returns true and no process works on
// the cache. A container may end before containerd has reported its image; then the next container is needed.
func untilKept(t *testing.T, dir string, run func(), kept func() bool) bool {
	t.Helper()
	return eventually(func() bool {
		run()
		return isIdle(t, dir) && kept()
	})
}

// isKept reports whether everything in a cache has been moved to containerd, and no process works on the cache.
func isKept(t *testing.T, dir string) bool {
	t.Helper()
	return len(ownCode(t, dir)) == 0 && !isNamed(t, dir) && len(ownCode(t, dir)) == 0
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
		cache, file := newCache(t)
		var used, mapped []string
		for ref, opts := range cacheImages {
			id := "sleeper-" + fmt.Sprint(len(mapped))
			run := func(args ...string) {
				t.Helper()
				got := node.Ctr(t, append([]string{"run", "--runtime", runtime, "--runtime-config-path", file}, args...)...)
				if got.Code != 0 {
					t.Fatalf("%+v", got)
				}
			}
			// The first container of each image moves the code to containerd.
			short := func() { run("--rm", ref, id, opts.Entrypoint[0], "exit", "0") }
			if !untilKept(t, cache, short, func() bool { return isKept(t, cache) }) {
				t.Fatalf("the cache keeps %q to itself", ownCode(t, cache))
			}
			t.Cleanup(func() {
				node.Ctr(t, "tasks", "delete", "--force", id)
				node.Ctr(t, "containers", "delete", id)
			})
			run("--detach", ref, id, opts.Entrypoint[0], "sleep", "1000")
			used = append(used, compiledFile(t, cache))
			mapped = append(mapped, mappedModule(t, taskPID(t, node, id)))
		}
		if used[0] != used[1] {
			t.Error("the second container compiled the module again")
		}
		var code unix.Stat_t
		if err := unix.Stat(used[0], &code); err != nil {
			t.Fatal(err)
		}
		if want := fmt.Sprint(code.Ino); mapped[0] != want || mapped[1] != want {
			t.Errorf("the workers map the inodes %q, the cache holds %s", mapped, want)
		}
	})
}

// compiledFile returns the path of the one compiled module in a cache.
func compiledFile(t *testing.T, dir string) string {
	t.Helper()
	all, err := cache.List(t.Context(), dir)
	if err != nil || len(all) != 1 {
		t.Fatalf("compiled modules: %+v, %v", all, err)
	}
	if all[0].Blob != "" {
		return all[0].Blob
	}
	return filepath.Join(dir, all[0].Engine, all[0].Digest+".cwasm")
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

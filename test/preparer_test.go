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

// compilingShim returns the process id of the node's shim that has a preparer at work, 0 if none has.
func compilingShim(t *testing.T, node *testnode.Node) int {
	t.Helper()
	for _, pattern := range []string{"/sys/fs/cgroup/containerd-shim-wasm/compile-*", "/sys/fs/cgroup/*/containerd-shim-wasm/compile-*"} {
		paths, err := filepath.Glob(filepath.Join(pattern, "cgroup.procs"))
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range paths {
			var pid int
			if _, err := fmt.Sscanf(filepath.Base(filepath.Dir(path)), "compile-%d-", &pid); err != nil {
				continue
			}
			// Either may be gone by now: then it is not the one.
			procs, _ := os.ReadFile(path)
			cmdline, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
			if len(procs) > 0 && strings.Contains(string(cmdline), node.Namespace) {
				return pid
			}
		}
	}
	return 0
}

// A shim that is killed while a module is compiled leaves no preparer, and nothing in the cache that
// the next one would load or stumble over.
func TestShimKilledWhileCompiling(t *testing.T) {
	const ref, smallRef = "example.com/preparer/big:latest", "example.com/preparer/small:latest"
	big, err := testguest.Keep("big.wasm", testguest.Big(4<<20))
	if err != nil {
		t.Fatal(err)
	}
	image := testguest.Image(t, ref, testguest.ImageOpts{Files: map[string]string{"/app.wasm": big}, Entrypoint: []string{"/app.wasm"}})
	small := testguest.Image(t, smallRef, testguest.ImageOpts{Files: map[string]string{"/app.wasm": ownGuest(t, "probe")}, Entrypoint: []string{"/app.wasm"}})
	nodes.EachVersion(t, func(t *testing.T, node *testnode.Node) {
		node.Import(t, image)
		node.Import(t, small)
		node.NoLeaks(t)
		cache, file := newCache(t)
		run := []string{"run", "--rm", "--runtime", runtime, "--runtime-config-path", file, ref, "big"}
		var first testnode.Result
		ended := make(chan error, 1)
		go func() {
			var err error
			first, err = node.RunCtr(t.Context(), testnode.CtrOpts{}, run...)
			ended <- err
		}()
		var shim int
		if !eventually(func() bool { shim = compilingShim(t, node); return shim != 0 }) {
			err := <-ended
			t.Fatalf("nothing is being compiled: %+v, %v", first, err)
		}
		if err := unix.Kill(shim, unix.SIGKILL); err != nil {
			t.Fatal(err)
		}
		if err := <-ended; err != nil || first.Code == 0 {
			t.Errorf("the shim was killed: %+v, %v", first, err)
		}
		noTask(t, node)
		noPreparer(t)
		// Whatever starts next, and be it another module, cleans up.
		if got := node.Ctr(t, "run", "--rm", "--runtime", runtime, "--runtime-config-path", file, smallRef, "small", "/app.wasm", "exit", "0"); got != (testnode.Result{}) {
			t.Errorf("another container: %+v", got)
		}
		if !eventually(func() bool { return len(temporaryFiles(t, cache)) == 0 }) {
			t.Errorf("the next start has left %q", temporaryFiles(t, cache))
		}
		again := func() {
			t.Helper()
			if got := node.Ctr(t, run...); got != (testnode.Result{}) {
				t.Errorf("after a shim was killed: %+v", got)
			}
		}
		if !untilKept(t, cache, again, func() bool { return isKept(t, cache) }) {
			t.Errorf("the cache keeps %q to itself", ownCode(t, cache))
		}
		emptyCache(t, cache)
	})
}

// temporaryFiles are those of a cache that belong to no whole entry.
func temporaryFiles(t *testing.T, dir string) []string {
	t.Helper()
	var found []string
	for _, pattern := range []string{"*.part", "*.lock"} {
		paths, err := filepath.Glob(filepath.Join(dir, "*", pattern))
		if err != nil {
			t.Fatal(err)
		}
		found = append(found, paths...)
	}
	return found
}

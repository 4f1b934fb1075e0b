package test

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/wasmshim/containerd-shim-wasm/internal/testguest"
	"github.com/wasmshim/containerd-shim-wasm/internal/testnode"
)

// preparer is a process that compiles a module.
type preparer struct {
	pid, shim int
	cgroup    string // of the memory controller, relative to its mount
}

// preparers returns all preparers on the machine.
func preparers(t *testing.T) []preparer {
	t.Helper()
	paths, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	var found []preparer
	for _, path := range paths {
		// The process may have ended meanwhile; it is then skipped.
		if cmdline, _ := os.ReadFile(path); !strings.HasPrefix(string(cmdline), "wasm-preparer\x00") {
			continue
		}
		var p preparer
		dir := filepath.Dir(path)
		stat, _ := os.ReadFile(dir + "/stat")
		if _, err := fmt.Sscanf(string(stat), "%d (worker) %c %d", &p.pid, new(rune), &p.shim); err != nil {
			continue
		}
		cgroups, _ := os.ReadFile(dir + "/cgroup")
		for line := range strings.Lines(string(cgroups)) {
			if parts := strings.SplitN(strings.TrimSpace(line), ":", 3); parts[1] == "memory" || parts[1] == "" && p.cgroup == "" {
				p.cgroup = parts[2]
			}
		}
		found = append(found, p)
	}
	return found
}

// compilingShim returns the process id of the node's shim that has an active preparer, or 0 if none has.
func compilingShim(t *testing.T, node *testnode.Node) int {
	t.Helper()
	for _, p := range preparers(t) {
		cmdline, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", p.shim))
		if strings.Contains(p.cgroup, "/wasm-compile-") && strings.Contains(string(cmdline), node.Namespace) {
			return p.shim
		}
	}
	return 0
}

// noPreparer fails if a preparer's cgroup outlives its shim. The cgroup's name is wasm-compile-PID-TEXT, with
// the shim's process id; a zombie counts as ended.
func noPreparer(t *testing.T) {
	t.Helper()
	var left []string
	ok := eventually(func() bool {
		left = nil
		_ = filepath.WalkDir("/sys/fs/cgroup", func(path string, _ fs.DirEntry, _ error) error {
			var pid int
			if _, err := fmt.Sscanf(filepath.Base(path), "wasm-compile-%d-", &pid); err != nil {
				return nil // not such a cgroup, or already removed
			}
			if _, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid)); err != nil {
				left = append(left, path)
			}
			return nil
		})
		return len(left) == 0
	})
	if !ok {
		t.Errorf("cgroups of preparers left behind: %q", left)
	}
}

// A shim that is killed while it compiles a module leaves no preparer. It also leaves nothing in the cache that
// the next shim would load or fail on.
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
		// The next start cleans up, also if it is of another module.
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

// temporaryFiles returns the files in a cache that belong to no complete entry.
func temporaryFiles(t *testing.T, dir string) []string {
	t.Helper()
	var found []string
	for _, pattern := range []string{"*.part", "*.lock", "*.work"} {
		paths, err := filepath.Glob(filepath.Join(dir, "*", pattern))
		if err != nil {
			t.Fatal(err)
		}
		found = append(found, paths...)
	}
	return found
}

package doctor

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/wasmshim/containerd-shim-wasm/internal/testworker"
)

// The row says what the workers were built of that are placed on the node.
func TestEngine(t *testing.T) {
	worker, err := testworker.Path()
	if err != nil {
		t.Fatal(err)
	}
	n := fake(t, good())
	if r := checkEngine(t.Context(), n); r.State != OK || !strings.Contains(r.Found, "the first container") {
		t.Errorf("nothing is placed: %+v", r)
	}
	for _, name := range []string{"wasm-worker-1", "wasm-worker-2"} {
		if err := os.Symlink(worker, filepath.Join(n.path(libDir), name)); err != nil {
			t.Fatal(err)
		}
	}
	built, err := readEngine(worker)
	if err != nil {
		t.Fatal(err)
	}
	if r := checkEngine(t.Context(), n); r.Found != judge([]placedEngine{built}).Found || strings.Count(r.Found, "wasmtime ") != 1 {
		t.Errorf("of %+v it says %+v", built, r)
	}
	if err := os.WriteFile(n.path(libDir+"/wasm-worker-3"), []byte("#!/bin/sh\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	if r := checkEngine(t.Context(), n); r.State != Warning || !strings.Contains(r.Found, "not known") {
		t.Errorf("a worker is a script: %+v", r)
	}
}

// An engine of which a guest may get out is a warning, and others beside it are named, too.
func TestEngineWithAdvisory(t *testing.T) {
	r := judge([]placedEngine{{"v44.0.0", "arm64"}, {"v99.0.0", "arm64"}})
	if r.State != Warning || r.Mend == "" || !strings.Contains(r.Found, "wasmtime 44.0.0 for arm64, wasmtime 99.0.0 for arm64") || !strings.Contains(r.Found, "GHSA-mghf-wjfp-p5xm") {
		t.Errorf("%+v", r)
	}
	if r := judge([]placedEngine{{"v44.0.0", "amd64"}}); r.State != OK || r.Found != "wasmtime 44.0.0 for amd64" {
		t.Errorf("%+v", r)
	}
}

package test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/wasmshim/containerd-shim-wasm/internal/testguest"
	"github.com/wasmshim/containerd-shim-wasm/internal/testnode"
)

// bigWithUnknownImport is testguest.Big with an import that no container provides.
func bigWithUnknownImport(t *testing.T) string {
	t.Helper()
	wasm := testguest.Big(4 << 20)
	const header = 8
	functions := header + 2 + int(wasm[header+1]) // the section after the type section
	wasm = slices.Concat(wasm[:functions], []byte("\x02\x0f\x01\x03env\x07nothing\x00\x00"), wasm[functions:])
	path, err := testguest.Keep("bigimport.wasm", wasm)
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// A module that cannot run is refused before it is compiled. The next time it is refused from the record,
// without a check. The configurations allow neither the memory nor the time to compile it.
func TestRefusalCostsNoCompilation(t *testing.T) {
	const ref = "example.com/refusal/import:latest"
	image := testguest.Image(t, ref, testguest.ImageOpts{Files: map[string]string{"/app.wasm": bigWithUnknownImport(t), "/again.wasm": bigWithUnknownImport(t)}})
	nodes.EachVersion(t, func(t *testing.T, node *testnode.Node) {
		node.Import(t, image)
		node.NoLeaks(t)
		cache, first := newCache(t, `compile_memory = "64MiB"`)
		second := shimConfig(t, fmt.Sprintf("cache_dir = %q\ncompile_timeout = \"1ns\"", cache))
		for _, test := range []struct{ config, file string }{{first, "/app.wasm"}, {second, "/app.wasm"}, {second, "/again.wasm"}} {
			got := node.Ctr(t, "run", "--rm", "--runtime", runtime, "--runtime-config-path", test.config, ref, "refused", test.file)
			if got.Code == 0 {
				t.Errorf("%s runs: %+v", test.file, got)
			}
			wantAll(t, got.Stderr, []string{test.file + " imports what a Wasm container does not provide", `"env"."nothing"`})
		}
		noTask(t, node)
		emptyCache(t, cache)
	})
}

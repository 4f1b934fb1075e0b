package world_test

import (
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/wasmshim/containerd-shim-wasm/internal/testguest"
	"github.com/wasmshim/containerd-shim-wasm/wasm/world"
	"github.com/wasmshim/containerd-shim-wasm/worker/component"
)

// The world of a component agrees with the imports and exports that the engine finds when it compiles it.
func TestEngineAgrees(t *testing.T) {
	paths := []string{testguest.Build(t, "component")}
	for _, name := range []string{"component-functions", "component-error", "component-hostimport", "component-http", "component-sockets"} {
		paths = append(paths, testguest.Build(t, name))
	}
	for _, name := range []string{"hello-c", "hello-go", "hello-rust", "probe"} {
		paths = append(paths, testguest.BuildComponent(t, name))
	}
	commands := 0
	for _, path := range paths {
		content, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		file, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer file.Close()
		w, err := world.Read(file)
		if err != nil {
			t.Fatal(err)
		}
		compiled, err := component.New(content)
		if err != nil {
			t.Fatal(err)
		}
		defer compiled.Close()
		if got, want := w.Missing(), compiled.Unprovided(); !slices.Equal(got, want) {
			t.Errorf("%s: missing are %q, the engine says %q", path, got, want)
		}
		if got, want := w.Command() != "", slices.Contains(compiled.Functions(), component.Start); got != want {
			t.Errorf("%s: it is a command: %v, the engine says %v", path, got, want)
		}
		for _, f := range compiled.Functions() {
			instance, _, inside := strings.Cut(f, "#")
			if f != component.Start && !w.Has(f, world.Function) && !(inside && w.Has(instance, world.Instance)) {
				t.Errorf("%s: the engine finds a function %q, which is not among %+v", path, f, w.Exports)
			}
		}
		if w.Command() != "" {
			commands++
		}
	}
	if commands == 0 || commands == len(paths) {
		t.Errorf("%d of %d are commands: half of what is foretold was not looked at", commands, len(paths))
	}
}

package test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/wasmshim/containerd-shim-wasm/internal/testguest"
	"github.com/wasmshim/containerd-shim-wasm/internal/testnode"
)

// giveUp kills ctr while it creates a container, and waits for the end of the container's shim.
func giveUp(t *testing.T, node *testnode.Node, id string, isCreating func() bool, args ...string) {
	t.Helper()
	ctr := node.CtrCommand(t.Context(), append([]string{"run", "--runtime", runtime}, args...)...)
	if err := ctr.Start(); err != nil {
		t.Fatal(err)
	}
	waitFor(t, isCreating, "the creation of %s", id)
	if err := ctr.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = ctr.Wait()
	waitFor(t, func() bool { return len(shimsOf(t, node, shimName, id)) == 0 }, "the end of the shim of %s", id)
	node.Ctr(t, "containers", "delete", id)
}

// shimName is what our shim's processes are called.
const shimName = "containerd-shim-wasm-v1"

// Nobody asks a second time for the end of a shim whose only container was given up while it was being
// created.
func TestCreationThatIsGivenUp(t *testing.T) {
	const ref = "example.com/giveup/big:latest"
	big, err := testguest.Keep("big.wasm", testguest.Big(8<<20))
	if err != nil {
		t.Fatal(err)
	}
	image := testguest.Image(t, ref, testguest.ImageOpts{Files: map[string]string{"/app.wasm": big}, Entrypoint: []string{"/app.wasm"}})
	eachVersionWithTasks(t, func(t *testing.T, node *testnode.Node) {
		node.Import(t, image)
		t.Run("compiling", func(t *testing.T) {
			node.NoLeaks(t)
			cache, file := newCache(t)
			giveUp(t, node, "compiling", func() bool { return compilingShim(t, node) != 0 }, "--runtime-config-path", file, ref, "compiling")
			noPreparer(t)
			emptyCache(t, cache)
		})
		t.Run("logger", func(t *testing.T) {
			node.NoLeaks(t)
			dir := t.TempDir()
			logger, started := filepath.Join(dir, "logger"), filepath.Join(dir, "started")
			if err := os.WriteFile(logger, []byte("#!/bin/sh\ntouch "+started+"\nexec sleep 1000\n"), 0o755); err != nil {
				t.Fatal(err)
			}
			isCreating := func() bool { _, err := os.Stat(started); return err == nil }
			giveUp(t, node, "logger", isCreating, "--log-uri", "binary://"+logger, tasksWasmImage, "logger", "/hello.wasm")
		})
	})
}

// Names that an image chooses do not make an error too long to arrive, nor one that nobody can read.
func TestLongNamesInErrors(t *testing.T) {
	const ref = "example.com/giveup/names:latest"
	var names []string
	for i := range 19 {
		names = append(names, string(rune('a'+i))+strings.Repeat("\x01", 60<<10))
	}
	module, err := testguest.Keep("names.wasm", testguest.Importing("env", names...))
	if err != nil {
		t.Fatal(err)
	}
	image := testguest.Image(t, ref, testguest.ImageOpts{Files: map[string]string{"/app.wasm": module}, Entrypoint: []string{"/app.wasm"}})
	nodes.EachVersion(t, func(t *testing.T, node *testnode.Node) {
		node.Import(t, image)
		for name, command := range map[string][]string{
			"imports":        {"/app.wasm"},
			"entry point":    {"/" + strings.Repeat("x", 100<<10) + ".wasm"},
			"no function":    {"/app.wasm#" + strings.Repeat("x", 100<<10)},
			"not UTF-8":      {"/\xff\xfe.wasm"},
			"working folder": {"./" + strings.Repeat("y/", 30<<10) + "x.wasm"},
		} {
			t.Run(name, func(t *testing.T) {
				node.NoLeaks(t)
				_, file := newCache(t)
				got := node.Ctr(t, append([]string{"run", "--rm", "--runtime", runtime, "--runtime-config-path", file, ref, "names"}, command...)...)
				if got.Code == 0 || strings.Contains(got.Stderr, "ttrpc") || len(got.Stderr) > 16<<10 {
					t.Errorf("got %d bytes: %.300q", len(got.Stderr), got.Stderr)
				}
				if name == "imports" && !strings.Contains(got.Stderr, "imports what a Wasm container does not provide") {
					t.Errorf("the reason is not said: %.300q", got.Stderr)
				}
			})
		}
	})
}

package test

import (
	"testing"

	"github.com/wasmshim/containerd-shim-wasm/internal/testguest"
	"github.com/wasmshim/containerd-shim-wasm/internal/testnode"
)

// A guest can catch an exception. An exception that is not caught is a trap.
func TestExceptions(t *testing.T) {
	const image = "example.com/tests/exceptions:latest"
	packed := testguest.Image(t, image, testguest.ImageOpts{Files: map[string]string{"/app.wasm": testguest.Build(t, "exceptions")}})
	nodes.EachVersion(t, func(t *testing.T, node *testnode.Node) {
		node.Import(t, packed)
		node.NoLeaks(t)
		check(t, "caught", node.Ctr(t, "run", "--rm", "--runtime", runtime, image, "caught", "/app.wasm"), testnode.Result{Code: 7, Stdout: "caught\n"})
		got := node.Ctr(t, "run", "--rm", "--runtime", runtime, image, "uncaught", "/app.wasm#uncaught")
		wantAll(t, got.Stderr, []string{"error: the guest does not catch an exception: thrown Wasm exception"})
		check(t, "uncaught", got, testnode.Result{Code: 134, Stderr: got.Stderr})
	})
}

// A module without _start can be run if it exports a function with an empty name.
func TestDefaultExport(t *testing.T) {
	const image = "example.com/tests/default-export:latest"
	packed := testguest.Image(t, image, testguest.ImageOpts{Files: map[string]string{"/app.wasm": testguest.Build(t, "default-export")}})
	nodes.EachVersion(t, func(t *testing.T, node *testnode.Node) {
		node.Import(t, packed)
		node.NoLeaks(t)
		check(t, "default export", node.Ctr(t, "run", "--rm", "--runtime", runtime, image, "default", "/app.wasm"), testnode.Result{Code: 5})
		got := node.Ctr(t, "run", "--rm", "--runtime", runtime, image, "missing", "/app.wasm#missing")
		wantAll(t, got.Stderr, []string{`exports no function "missing" without arguments (it has: "_start", "")`})
	})
}

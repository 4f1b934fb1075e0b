package test

import (
	"path/filepath"
	"slices"
	"testing"

	"github.com/wasmshim/containerd-shim-wasm/internal/testguest"
	"github.com/wasmshim/containerd-shim-wasm/internal/testnode"
	"github.com/wasmshim/containerd-shim-wasm/internal/testregistry"
	"github.com/wasmshim/containerd-shim-wasm/oci/pack"
)

// imageVerb runs one of the shim's verbs for images on a node.
func imageVerb(t *testing.T, node *testnode.Node, verb string, args ...string) {
	t.Helper()
	args = slices.Concat([]string{"image", verb, "--address", node.Address(), "--namespace", node.Namespace}, args)
	if output, err := shimCommand(t, args...).CombinedOutput(); err != nil {
		t.Fatalf("%v: %v: %s", args, err, output)
	}
}

// A packed module or component runs, in every format, with the arguments and the environment that it was packed
// with.
func TestPackAndRun(t *testing.T) {
	probes := map[string]string{"module": testguest.Build(t, "probe"), "component": testguest.BuildComponent(t, "probe")}
	words := []string{"--arg", "say", "--arg", "packed"}
	nodes.EachVersion(t, func(t *testing.T, node *testnode.Node) {
		for _, format := range pack.Formats() {
			for kind, probe := range probes {
				t.Run(format.Name+" of a "+kind, func(t *testing.T) {
					ref := "example.com/packed/" + format.Name + "-" + kind + ":latest"
					run := []string{"run", "--rm", "--runtime", runtime, ref, "packed"}
					switch format.Name {
					case "artifact", "oras", "wasm-to-oci": // their configuration holds no arguments, and ctr accepts only an image configuration
						imageVerb(t, node, "pack", probe, "-t", ref+"-artifact", "--format", format.Name, "--import")
						defer node.Ctr(t, "image", "rm", "--sync", ref+"-artifact")
						imageVerb(t, node, "adapt", append(words, ref+"-artifact", "-t", ref)...)
					case "compat": // the format has no entry point
						imageVerb(t, node, "pack", probe, "-t", ref, "--format", format.Name, "--import")
						run = append(run, "/plugin.wasm", "say", "packed")
					default:
						imageVerb(t, node, "pack", append(words, probe, "-t", ref, "--format", format.Name, "--import")...)
					}
					defer node.Ctr(t, "image", "rm", "--sync", ref)
					node.NoLeaks(t)
					check(t, format.Name, node.Ctr(t, run...), testnode.Result{Stdout: "packed\n"})
				})
			}
		}
	})
}

// The image is the same via a file, via a registry, and imported directly.
func TestPackTarAndPush(t *testing.T) {
	hello := testguest.Build(t, "hello-c")
	registry := testregistry.Start(t)
	nodes.EachVersion(t, func(t *testing.T, node *testnode.Node) {
		tar := filepath.Join(t.TempDir(), "app.tar")
		const ref = "example.com/packed/tar:latest"
		pushed := registry.Ref("pushed")
		imageVerb(t, node, "pack", hello, "-t", ref, "-o", tar)
		node.Import(t, tar)
		imageVerb(t, node, "pack", hello, "-t", pushed, "--format", "layer", "--push")
		if got := node.Ctr(t, "image", "pull", "--plain-http", pushed); got.Code != 0 {
			t.Fatal(got.Stderr)
		}
		for _, image := range []string{ref, pushed} {
			defer node.Ctr(t, "image", "rm", "--sync", image)
			check(t, image, node.Ctr(t, "run", "--rm", "--runtime", runtime, image, "packed"), testnode.Result{Stdout: greeting})
		}
	})
}

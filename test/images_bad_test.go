package test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/wasmshim/containerd-shim-wasm/internal/testguest"
	"github.com/wasmshim/containerd-shim-wasm/internal/testimage"
	"github.com/wasmshim/containerd-shim-wasm/internal/testnode"
	"github.com/wasmshim/containerd-shim-wasm/internal/testregistry"
)

// imageRefusals holds parts of the error for each image that cannot run.
var imageRefusals = map[string][]string{
	"bad-two-modules":        {"2 Wasm layers", "app.wasm", "sha256:", "set the entry point or the command"},
	"bad-two-modules-titled": {"2 Wasm layers", "app.wasm", "one of one.wasm, two.wasm"},
	"bad-tar-as-wasm":        {"media type application/wasm, but holds a tar archive"},
	"bad-text-as-wasm":       {"media type application/wasm, but holds WebAssembly's text format"},
	"bad-gzip-as-wasm":       {"media type application/wasm, but holds gzip-compressed data"},
	"bad-wasm-as-gzip":       {"media type application/wasm+gzip, but holds a WebAssembly module"},
	"bad-half-gzip":          {"unexpected EOF"},
	"bad-half-module":        {"not a valid WebAssembly module"},
	"bad-empty-layer":        {"media type application/wasm, but holds nothing"},
	"bad-component-imports":  {"imports what a Wasm container does not provide: wasi:keyvalue/store@0.2.0;", "build it for wasi:cli/command of WASI 0.2"},
	"bad-component-library":  {"does not export wasi:cli/run: it is a library", "#FUNCTION"},
}

// An image that is itself wrong is refused with the reason, and leaves nothing behind.
func TestImageRefused(t *testing.T) {
	guest, err := os.ReadFile(testguest.Build(t, "hello-c"))
	if err != nil {
		t.Fatal(err)
	}
	nodes.EachVersion(t, func(t *testing.T, node *testnode.Node) {
		for _, format := range testimage.Bad() {
			want, ok := imageRefusals[format.Name]
			if !ok {
				continue // containerd itself refuses it: see TestImageRefusedByContainerd
			}
			t.Run(format.Name, func(t *testing.T) {
				ref := importImage(t, node, format.Name, format.Build(guest))
				node.NoLeaks(t)
				refuseImage(t, node, nil, ref, format.Entry, want...)
			})
		}
	})
}

// importImage imports an image into the node for the duration of the test.
func importImage(t *testing.T, node *testnode.Node, name string, image *testimage.Image) string {
	t.Helper()
	ref := "example.com/images/" + name + ":latest"
	path := t.TempDir() + "/image.tar"
	if err := image.WriteTar(path, ref); err != nil {
		t.Fatal(err)
	}
	if got := node.Ctr(t, "image", "import", "--all-platforms", "--no-unpack", path); got.Code != 0 {
		t.Fatalf("import %s: %s", name, got.Stderr)
	}
	t.Cleanup(func() { node.Ctr(t, "image", "rm", "--sync", ref) })
	return ref
}

// refuseImage runs an image that cannot run, and checks the error that ctr prints.
func refuseImage(t *testing.T, node *testnode.Node, options []string, ref string, entry []string, want ...string) {
	t.Helper()
	args := slices.Concat([]string{"run", "--rm", "--runtime", runtime}, options, []string{ref, "refused"}, entry)
	got := node.Ctr(t, args...)
	if got.Code == 0 || got.Stdout != "" {
		t.Errorf("it ran: %+v", got)
	}
	for _, text := range want {
		if !strings.Contains(got.Stderr, text) {
			t.Errorf("%q is not in the message: %s", text, got.Stderr)
		}
	}
}

// A blob whose content changed in containerd's content store after the pull never runs, even when its machine
// code is in the cache.
func TestImageDamagedInTheStore(t *testing.T) {
	guest, err := os.ReadFile(testguest.Build(t, "hello-c"))
	if err != nil {
		t.Fatal(err)
	}
	nodes.EachVersion(t, func(t *testing.T, node *testnode.Node) {
		for _, damage := range []struct {
			name string
			do   func(blob digest.Digest) error
			want []string
		}{
			{"replaced", func(blob digest.Digest) error { return testimage.Replace(node.Root(), blob, guest) }, []string{"is damaged", "pull it again"}},
			{"truncated", func(blob digest.Digest) error { return testimage.Truncate(node.Root(), blob, 20) }, []string{"20 bytes", "pull it again"}},
			{"missing", func(blob digest.Digest) error { return os.Remove(testimage.BlobPath(node.Root(), blob)) }, []string{"pull it again"}},
		} {
			t.Run(damage.name, func(t *testing.T) {
				// The damaged module is not shared: no other image's blob is damaged.
				image := testimage.TooLarge(guest, len(guest)+len(damage.name)+1)
				ref := importImage(t, node, "damaged-"+damage.name, image)
				node.NoLeaks(t)
				run := []string{"run", "--rm", "--runtime", runtime, ref, "whole"}
				check(t, "before", node.Ctr(t, run...), testnode.Result{Stdout: greeting})
				if err := damage.do(image.Wasm()[0]); err != nil {
					t.Fatal(err)
				}
				refuseImage(t, node, nil, ref, nil, append(damage.want, image.Wasm()[0].Encoded())...)
			})
		}
	})
}

// A layer must not exceed the operator's limit, compressed or decompressed.
func TestImageTooLarge(t *testing.T) {
	guest, err := os.ReadFile(testguest.Build(t, "hello-c"))
	if err != nil {
		t.Fatal(err)
	}
	const limit = 4 << 20
	config := filepath.Join(t.TempDir(), "config.toml")
	text := fmt.Sprintf("cache_dir = %q\nmax_module_size = \"4MiB\"\n", t.TempDir())
	if err := os.WriteFile(config, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	images := map[string]*testimage.Image{"large": testimage.TooLarge(guest, limit+1)}
	for _, format := range testimage.Bombs(64 << 20) {
		images[format.Name] = format.Build(guest)
	}
	nodes.EachVersion(t, func(t *testing.T, node *testnode.Node) {
		for name, image := range images {
			t.Run(name, func(t *testing.T) {
				ref := importImage(t, node, name, image)
				node.NoLeaks(t)
				refuseImage(t, node, []string{"--runtime-config-path", config}, ref, nil, "4194304", "raise max_module_size in", config)
			})
		}
	})
}

// containerd itself refuses what is wrong during a pull or an import. The shim reports only what containerd
// accepts.
func TestImageRefusedByContainerd(t *testing.T) {
	guest, err := os.ReadFile(testguest.Build(t, "hello-c"))
	if err != nil {
		t.Fatal(err)
	}
	registry := testregistry.Start(t)
	nodes.EachVersion(t, func(t *testing.T, node *testnode.Node) {
		node.NoLeaks(t)
		image := testimage.TooLarge(guest, len(guest)+1)
		other := slices.Clone(image.Blobs[image.Wasm()[0]])
		other[len(other)-1]++
		registry.Replace(image.Wasm()[0], other)
		ref := registry.Push(t, "mismatch", image)
		if got := node.Ctr(t, "image", "pull", "--plain-http", ref); got.Code == 0 || !strings.Contains(got.Stderr, image.Wasm()[0].String()) {
			t.Errorf("a blob that is not what its digest says was pulled: %+v", got)
		}
		counted := importImage(t, node, "counted", testimage.CountedLayer(guest))
		refuseImage(t, node, nil, counted, nil, "mismatched image rootfs and manifest layers")
		const mended = "example.com/images/mended:latest"
		imageVerb(t, node, "adapt", counted, "-t", mended)
		defer node.Ctr(t, "image", "rm", "--sync", mended)
		check(t, "the adapted image", node.Ctr(t, "run", "--rm", "--runtime", runtime, mended, "mended"), testnode.Result{Stdout: greeting})
	})
}

// For an index without a manifest for this node, image inspect lists the platforms of the index, and how to run
// them.
func TestImageInspectNamesPlatforms(t *testing.T) {
	format, _ := testimage.Named("bad-platforms")
	path := filepath.Join(t.TempDir(), "image.tar")
	if err := format.Build([]byte("\x00asm\x01\x00\x00\x00")).WriteTar(path, "example.com/images/platforms:latest"); err != nil {
		t.Fatal(err)
	}
	output, err := shimCommand(t, "image", "inspect", path).CombinedOutput()
	if err != nil {
		t.Errorf("image inspect: %v", err)
	}
	for _, want := range []string{"--platform windows/amd64", "--platform linux/s390x", "a kubelet pulls linux/"} {
		if !strings.Contains(string(output), want) {
			t.Errorf("%q is not in %s", want, output)
		}
	}
}

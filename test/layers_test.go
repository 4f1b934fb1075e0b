package test

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	goruntime "runtime"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"github.com/wasmshim/containerd-shim-wasm/internal/testguest"
	"github.com/wasmshim/containerd-shim-wasm/internal/testnode"
)

// manyLayers is the number of layers; their full paths do not fit into the page that mount(2) has for options.
const manyLayers = 128

// layeredImage packs an image of many layers. The first holds the probe. Each layer has a file of its own, and
// replaces one common file.
func layeredImage(t *testing.T, ref string) string {
	t.Helper()
	probe, err := os.ReadFile(testguest.Build(t, "probe"))
	if err != nil {
		t.Fatal(err)
	}
	image, err := mutate.ConfigFile(empty.Image, &v1.ConfigFile{
		OS: "linux", Architecture: goruntime.GOARCH, RootFS: v1.RootFS{Type: "layers"},
		Config: v1.Config{Entrypoint: []string{"/app.wasm"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	for i := range manyLayers {
		files := map[string][]byte{fmt.Sprintf("layer-%d", i): []byte(fmt.Sprint(i)), "last": []byte(fmt.Sprint(i))}
		if i == 0 {
			files["app.wasm"] = probe
		}
		if image, err = mutate.AppendLayers(image, tarLayer(t, files)); err != nil {
			t.Fatal(err)
		}
	}
	tag, err := name.NewTag(ref, name.StrictValidation)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "image.tar")
	if err := tarball.WriteToFile(path, tag, image); err != nil {
		t.Fatal(err)
	}
	return path
}

func tarLayer(t *testing.T, files map[string][]byte) v1.Layer {
	t.Helper()
	var content bytes.Buffer
	archive := tar.NewWriter(&content)
	for name, data := range files {
		if err := archive.WriteHeader(&tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o755, Size: int64(len(data))}); err != nil {
			t.Fatal(err)
		}
		if _, err := archive.Write(data); err != nil {
			t.Fatal(err)
		}
	}
	if err := archive.Close(); err != nil {
		t.Fatal(err)
	}
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(content.Bytes())), nil })
	if err != nil {
		t.Fatal(err)
	}
	return layer
}

// An image of many layers runs, and the guest sees all of them in the right order.
func TestManyLayers(t *testing.T) {
	const ref = "example.com/layers/probe:latest"
	image := layeredImage(t, ref)
	nodes.EachVersion(t, func(t *testing.T, node *testnode.Node) {
		node.Import(t, image)
		node.NoLeaks(t)
		last := fmt.Sprint(manyLayers - 1)
		for file, want := range map[string]string{"/last": last, "/layer-0": "0", "/layer-" + last: last} {
			got := node.Ctr(t, "run", "--rm", "--runtime", runtime, ref, "layers", "/app.wasm", "read", file)
			if want := (testnode.Result{Stdout: want}); got != want {
				t.Errorf("%s: got %+v, want %+v", file, got, want)
			}
		}
	})
}

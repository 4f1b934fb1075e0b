package inspect_test

import (
	"archive/tar"
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/wasmshim/containerd-shim-wasm/internal/testguest"
	"github.com/wasmshim/containerd-shim-wasm/oci/inspect"
)

// An image in the format of older versions of docker save is inspected.
func TestSavedDockerImage(t *testing.T) {
	dir := t.TempDir()
	app := filepath.Join(dir, "app.wasm")
	if err := os.WriteFile(app, guest, 0o644); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "image.tar")
	err := testguest.WriteImage(path, "example.com/tests/saved:v1", testguest.ImageOpts{
		Files: map[string]string{"/app.wasm": app}, Entrypoint: []string{"/app.wasm"},
	})
	if err != nil {
		t.Fatal(err)
	}
	source, images, closeTar, err := inspect.Tar(path)
	if err != nil {
		t.Fatal(err)
	}
	defer closeTar()
	if len(images) != 1 || images[0].Name != "example.com/tests/saved:v1" {
		t.Fatalf("found %+v", images)
	}
	report, err := inspect.Inspect(t.Context(), source, images[0], node)
	if err != nil {
		t.Fatal(err)
	}
	if i := report.Images[0]; !strings.Contains(i.Runs, "the file /app.wasm of layer 0, a WebAssembly module") {
		t.Errorf("runs %q, problem %q", i.Runs, i.Problem)
	}
}

func TestFilesThatAreNoImages(t *testing.T) {
	archive := func(files map[string]string) string {
		var buffer bytes.Buffer
		w := tar.NewWriter(&buffer)
		for name, content := range files {
			if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Size: int64(len(content)), Mode: 0o644}); err != nil {
				t.Fatal(err)
			}
			if _, err := w.Write([]byte(content)); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		return buffer.String()
	}
	whole := archive(map[string]string{"index.json": `{"schemaVersion":2,"manifests":[]}`})
	for want, content := range map[string]string{
		"a WebAssembly module, not a tar": string(guest),
		"nothing, not a tar":              "",
		"gzip-compressed data, not a tar": "\x1f\x8b\x08",
		"neither an OCI layout":           archive(map[string]string{"x": "y"}),
		"names no image":                  whole,
		"index is not valid":              archive(map[string]string{"index.json": "{"}),
		"unexpected EOF":                  whole[:520],
	} {
		path := filepath.Join(t.TempDir(), "file")
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
		if _, _, _, err := inspect.Tar(path); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
}

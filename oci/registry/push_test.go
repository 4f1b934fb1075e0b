package registry_test

import (
	"io"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/wasmshim/containerd-shim-wasm/internal/testregistry"
	"github.com/wasmshim/containerd-shim-wasm/oci/pack"
	"github.com/wasmshim/containerd-shim-wasm/oci/registry"
	"github.com/wasmshim/containerd-shim-wasm/wasm"
)

func packed(t *testing.T, o pack.Options) *pack.Image {
	t.Helper()
	image, err := pack.Make(o)
	if err != nil {
		t.Fatal(err)
	}
	return image
}

// app writes a file that is a module.
func app(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "app.wasm")
	if err := os.WriteFile(path, []byte(wasm.ModuleHeader), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestPushIsReadBack(t *testing.T) {
	server := testregistry.Start(t)
	for _, f := range pack.Formats() {
		image := packed(t, pack.Options{Modules: []string{app(t)}, Format: f})
		ref := server.Ref("pushed/" + f.Name + ":v1")
		told := 0
		progress := func(done, all int, _ pack.Blob) {
			if told++; done != told || all != len(image.Blobs) {
				t.Errorf("%s: told of %d of %d, want %d of %d", f.Name, done, all, told, len(image.Blobs))
			}
		}
		if err := registry.Push(t.Context(), ref, image, registry.Options{}, progress); err != nil {
			t.Fatal(err)
		}
		if told != len(image.Blobs) {
			t.Errorf("%s: told of %d blobs, want %d", f.Name, told, len(image.Blobs))
		}
		parsed, err := name.ParseReference(ref)
		if err != nil {
			t.Fatal(err)
		}
		got, err := remote.Get(parsed)
		if err != nil {
			t.Fatal(err)
		}
		if got.Digest.String() != image.Root.Digest.String() || string(got.MediaType) != image.Root.MediaType {
			t.Errorf("%s: read back %s %s, want %s %s", f.Name, got.MediaType, got.Digest, image.Root.MediaType, image.Root.Digest)
		}
		for _, b := range image.Blobs[:len(image.Blobs)-1] {
			if got := fetch(t, server.Addr, "pushed/"+f.Name, b.Digest.String()); int64(got) != b.Size {
				t.Errorf("%s: blob %s has %d bytes, want %d", f.Name, b.Digest, got, b.Size)
			}
		}
	}
}

func fetch(t *testing.T, address, repository, digest string) int {
	t.Helper()
	response, err := http.Get("http://" + path.Join(address, "v2", repository, "blobs", digest))
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	content, err := io.ReadAll(response.Body)
	if err != nil || response.StatusCode != http.StatusOK {
		t.Fatalf("%s: %v", response.Status, err)
	}
	return len(content)
}

func TestPushOfAnIndex(t *testing.T) {
	server := testregistry.Start(t)
	image := packed(t, pack.Options{Modules: []string{app(t)}, Platforms: []string{"linux/amd64", "wasi/wasm"}})
	ref := server.Ref("index:v1")
	if err := registry.Push(t.Context(), ref, image, registry.Options{PlainHTTP: true}, nil); err != nil {
		t.Fatal(err)
	}
	parsed, err := name.ParseReference(ref)
	if err != nil {
		t.Fatal(err)
	}
	got, err := remote.Image(parsed, remote.WithPlatform(v1.Platform{OS: "wasi", Architecture: "wasm"}))
	if err != nil {
		t.Fatal(err)
	}
	config, err := got.ConfigFile()
	if err != nil || config.OS != "wasi" {
		t.Errorf("config %+v, %v", config, err)
	}
}

package testimage_test

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/wasmshim/containerd-shim-wasm/internal/testimage"
	"github.com/wasmshim/containerd-shim-wasm/internal/testregistry"
)

var guest = []byte("\x00asm\x01\x00\x00\x00")

// guestOf returns the guest for a format.
func guestOf(f testimage.Format) []byte {
	if f.Component {
		return testimage.Component([]string{"wasi:io/streams@0.2.0"}, []string{"wasi:cli/run@0.2.0"})
	}
	return guest
}

func TestFormatsAreWellFormed(t *testing.T) {
	seen := map[string]bool{}
	for _, f := range testimage.Formats() {
		t.Run(f.Name, func(t *testing.T) {
			if seen[f.Name] {
				t.Error("two formats have this name")
			}
			seen[f.Name] = true
			image := f.Build(guestOf(f))
			if again := f.Build(guestOf(f)); again.Root.Digest != image.Root.Digest {
				t.Error("built twice, it is not the same")
			}
			for key, content := range image.Blobs {
				if digest.FromBytes(content) != key {
					t.Errorf("blob %s is not what it is called", key)
				}
			}
			if f.InTar == (len(image.Wasm()) > 0) {
				t.Errorf("module in a tar: %v, Wasm layers: %v", f.InTar, image.Wasm())
			}
			for _, d := range image.Manifests() {
				checkManifest(t, image, d)
			}
		})
	}
}

// checkManifest checks that everything that a manifest refers to is present, with its
// size.
func checkManifest(t *testing.T, image *testimage.Image, d ocispec.Descriptor) {
	t.Helper()
	var manifest ocispec.Manifest
	if err := json.Unmarshal(image.Blobs[d.Digest], &manifest); err != nil {
		t.Fatal(err)
	}
	for _, part := range append(manifest.Layers, manifest.Config) {
		content, ok := image.Blobs[part.Digest]
		if !ok || int64(len(content)) != part.Size {
			t.Errorf("%s %s: there: %v, %d bytes, want %d", part.MediaType, part.Digest, ok, len(content), part.Size)
		}
	}
}

func TestConfigOfComponents(t *testing.T) {
	f, ok := testimage.Named("artifact-wkg")
	if !ok {
		t.Fatal("no such format")
	}
	for system, guest := range map[string][]byte{"wasip1": guest, "wasip2": guestOf(f)} {
		image := f.Build(guest)
		var manifest ocispec.Manifest
		if err := json.Unmarshal(image.Blobs[image.Root.Digest], &manifest); err != nil {
			t.Fatal(err)
		}
		var config struct {
			OS        string
			Component *struct{ Exports, Imports []string }
		}
		if err := json.Unmarshal(image.Blobs[manifest.Config.Digest], &config); err != nil {
			t.Fatal(err)
		}
		if c := config.Component; config.OS != system || (c != nil) != (system == "wasip2") ||
			c != nil && (!slices.Equal(c.Exports, []string{"wasi:cli/run@0.2.0"}) || !slices.Equal(c.Imports, []string{"wasi:io/streams@0.2.0"})) {
			t.Errorf("the config for %s is %+v, %+v", system, config, config.Component)
		}
	}
}

func TestNamed(t *testing.T) {
	for _, name := range []string{"artifact-wkg", "bad-no-config"} {
		if f, ok := testimage.Named(name); !ok || f.Name != name {
			t.Errorf("Named(%q) = %q, %v", name, f.Name, ok)
		}
	}
	if _, ok := testimage.Named("nothing"); ok {
		t.Error("Named knows a name that no format has")
	}
}

func TestRegistryTakesEveryFormat(t *testing.T) {
	registry := testregistry.Start(t)
	for _, f := range slices.Concat(testimage.Formats(), testimage.Bad(), testimage.Bombs(1<<16)) {
		if f.Name == "bad-no-config" {
			continue // its About says that, and TestRegistryRefusesManifestWithoutConfig checks it
		}
		image := f.Build(guestOf(f))
		ref, err := name.ParseReference(registry.Push(t, f.Name, image))
		if err != nil {
			t.Fatal(err)
		}
		got, err := remote.Get(ref)
		if err != nil {
			t.Fatal(err)
		}
		if got.Digest.String() != image.Root.Digest.String() || string(got.MediaType) != image.Root.MediaType {
			t.Errorf("%s: read back %s %s, want %s %s", f.Name, got.MediaType, got.Digest, image.Root.MediaType, image.Root.Digest)
		}
	}
}

func TestRegistryRefusesManifestWithoutConfig(t *testing.T) {
	registry := testregistry.Start(t)
	f, ok := testimage.Named("bad-no-config")
	if !ok {
		t.Fatal("no such format")
	}
	ref, err := name.ParseReference(registry.Ref(f.Name))
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Build(guest).Push(ref); err == nil {
		t.Error("the registry took it: let tests pull it, and say so in its About")
	}
}

func TestTarIsALayout(t *testing.T) {
	for _, f := range slices.Concat(testimage.Formats(), testimage.Bad()) {
		image := f.Build(guestOf(f))
		path := filepath.Join(t.TempDir(), "image.tar")
		if err := image.WriteTar(path, "example.com/tests/"+f.Name+":v1"); err != nil {
			t.Fatal(err)
		}
		entries := readTar(t, path)
		var index ocispec.Index
		if err := json.Unmarshal(entries["index.json"], &index); err != nil {
			t.Fatal(err)
		}
		if len(index.Manifests) != 1 || index.Manifests[0].Digest != image.Root.Digest || index.Manifests[0].Annotations[ocispec.AnnotationRefName] != "v1" {
			t.Errorf("%s: index.json is %s", f.Name, entries["index.json"])
		}
		for key, content := range image.Blobs {
			if !bytes.Equal(entries["blobs/sha256/"+key.Encoded()], content) {
				t.Errorf("%s: blob %s is not in the tar", f.Name, key)
			}
		}
	}
}

func readTar(t *testing.T, path string) map[string][]byte {
	t.Helper()
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	entries := map[string][]byte{}
	for archive := tar.NewReader(file); ; {
		header, err := archive.Next()
		if err == io.EOF {
			return entries
		}
		if err != nil {
			t.Fatal(err)
		}
		if entries[header.Name], err = io.ReadAll(archive); err != nil {
			t.Fatal(err)
		}
	}
}

func TestTooLargeIsStillAModule(t *testing.T) {
	image := testimage.TooLarge(guest, 1<<20)
	layer := image.Blobs[image.Wasm()[0]]
	if len(layer) < 1<<20 || !bytes.HasPrefix(layer, guest) {
		t.Errorf("%d bytes that begin with %x", len(layer), layer[:8])
	}
}

func TestDamage(t *testing.T) {
	root := t.TempDir()
	blob := digest.FromBytes(guest)
	write := func() {
		t.Helper()
		if err := os.MkdirAll(filepath.Dir(testimage.BlobPath(root, blob)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(testimage.BlobPath(root, blob), guest, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	expect := func(want string) {
		t.Helper()
		content, err := os.ReadFile(testimage.BlobPath(root, blob))
		if err != nil || string(content) != want {
			t.Errorf("the blob is %q (%v), want %q", content, err, want)
		}
	}
	write()
	if err := testimage.Replace(root, blob, []byte("\x00asm")); err != nil {
		t.Error(err)
	}
	expect("\x00asm\x00\x00\x00\x00")
	if err := testimage.Truncate(root, blob, 3); err != nil {
		t.Error(err)
	}
	expect("\x00as")
	if err := testimage.Truncate(root, blob, 3); err == nil {
		t.Error("cut nothing off and said nothing")
	}
}

package pack_test

import (
	"path/filepath"
	"strings"
	"testing"

	images "github.com/containerd/containerd/api/services/images/v1"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/wasmshim/containerd-shim-wasm/entrypoint"
	"github.com/wasmshim/containerd-shim-wasm/internal/testimage"
	"github.com/wasmshim/containerd-shim-wasm/internal/testnode"
	"github.com/wasmshim/containerd-shim-wasm/oci/inspect"
	"github.com/wasmshim/containerd-shim-wasm/oci/pack"
	"github.com/wasmshim/containerd-shim-wasm/oci/store"
)

// connect returns a connection to a node, closed at the test's end.
func connect(t *testing.T, node *testnode.Node) *store.Store {
	t.Helper()
	s, err := store.Connect(node.Address())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// collect has containerd collect its garbage before it returns: it does for an image that is removed
// so.
func collect(t *testing.T, node *testnode.Node, s *store.Store, image string) {
	t.Helper()
	_, err := images.NewImagesClient(s.Conn()).Delete(store.In(t.Context(), node.Namespace), &images.DeleteImageRequest{Name: image, Sync: true})
	if err != nil {
		t.Fatal(err)
	}
}

// An image that was imported is whole after containerd has collected its garbage, and gone with its
// name.
func TestImport(t *testing.T) {
	node := testnode.New(t, testnode.Options{})
	s := connect(t, node)
	ctx := store.In(t.Context(), node.Namespace)
	small := pack1(t, pack.Options{Modules: []string{write(t, "small.wasm", module)}})
	for _, f := range pack.Formats() {
		// A module of its own, so that no other image keeps it.
		path := write(t, "app.wasm", module+"\x00"+string(rune(len(f.Name)+1))+string(rune(len(f.Name)))+f.Name)
		image := pack1(t, pack.Options{Modules: []string{path}, Format: f})
		ref := "example.com/imported/" + f.Name + ":v1"
		for range 2 { // the second time, all is there already
			if err := image.Import(ctx, s.Conn(), ref, nil); err != nil {
				t.Fatal(err)
			}
		}
		if err := small.Import(ctx, s.Conn(), "example.com/small:v1", nil); err != nil {
			t.Fatal(err)
		}
		collect(t, node, s, "example.com/small:v1")
		report, err := inspect.Inspect(ctx, inspect.Containerd(s.Conn()), inspect.Named{Name: ref, Root: image.Root}, inspect.Node{MaxModuleSize: 1 << 20})
		if err != nil {
			t.Fatal(err)
		}
		if problem := report.Images[0].Problem; problem != "" {
			t.Errorf("%s: %s", f.Name, problem)
		}
		collect(t, node, s, ref)
		for _, b := range image.Blobs {
			if b.MediaType == ocispec.MediaTypeEmptyJSON || b.Size == 2 {
				continue // the same in others
			}
			if _, err := inspect.Containerd(s.Conn()).Open(ctx, b.Descriptor); err == nil {
				t.Errorf("%s: blob %s outlives the image", f.Name, b.MediaType)
			}
		}
	}
	if left := node.Ctr(t, "leases", "ls", "-q"); strings.Contains(left.Stdout, "wasm-images") {
		t.Errorf("leases that are left: %s", left.Stdout)
	}
}

// What ctr refuses, it takes once it is adapted, and keeps it when the artifact goes.
func TestAdapt(t *testing.T) {
	node := testnode.New(t, testnode.Options{})
	s := connect(t, node)
	ctx := store.In(t.Context(), node.Namespace)
	source := inspect.Containerd(s.Conn())
	const artifact, adapted = "example.com/artifact:v1", "example.com/adapted:v1"
	image := pack1(t, pack.Options{Modules: []string{write(t, "app.wasm", module)}, Format: format(t, "artifact")})
	if err := image.Import(ctx, s.Conn(), artifact, nil); err != nil {
		t.Fatal(err)
	}
	if got := node.Ctr(t, "containers", "create", artifact, "refused", "app.wasm"); got.Code == 0 {
		t.Error("ctr takes the artifact as it is: then nothing has to be adapted")
	}
	manifest, err := inspect.Manifest(ctx, source, image.Root, image.Root.Digest)
	if err != nil {
		t.Fatal(err)
	}
	other, err := pack.Adapt(ctx, manifest, source, pack.AdaptOptions{Env: []string{"A=1"}})
	if err != nil {
		t.Fatal(err)
	}
	if len(other.Blobs) != 2 {
		t.Errorf("%d blobs are new, want a config and a manifest", len(other.Blobs))
	}
	if err := other.Import(ctx, s.Conn(), adapted, nil); err != nil {
		t.Fatal(err)
	}
	collect(t, node, s, artifact)
	if got := node.Ctr(t, "containers", "create", adapted, "taken"); got.Code != 0 {
		t.Errorf("ctr refuses what was adapted: %s", got.Stderr)
	}
	found, err := s.FindImage(t.Context(), node.Namespace, adapted)
	if err != nil {
		t.Fatal(err)
	}
	if chosen, err := found.Select(entrypoint.Parse("/app.wasm")); err != nil || chosen.Digest != digest.FromString(module) {
		t.Errorf("it runs %+v, %v", chosen, err)
	}
}

// Layers of files stay the root file system.
func TestAdaptKeepsFiles(t *testing.T) {
	node := testnode.New(t, testnode.Options{})
	s := connect(t, node)
	ctx := store.In(t.Context(), node.Namespace)
	source := inspect.Containerd(s.Conn())
	f, ok := testimage.Named("several")
	if !ok {
		t.Fatal("no such format")
	}
	const original, adapted = "example.com/several:v1", "example.com/adapted:v1"
	image := f.Build([]byte(module))
	path := filepath.Join(t.TempDir(), "several.tar")
	if err := image.WriteTar(path, original); err != nil {
		t.Fatal(err)
	}
	node.Import(t, path)
	manifest, err := inspect.Manifest(ctx, source, image.Root, image.Root.Digest)
	if err != nil {
		t.Fatal(err)
	}
	other, err := pack.Adapt(ctx, manifest, source, pack.AdaptOptions{Entrypoint: []string{"other.wasm"}})
	if err != nil {
		t.Fatal(err)
	}
	if err := other.Import(ctx, s.Conn(), adapted, nil); err != nil {
		t.Fatal(err)
	}
	if got := node.Ctr(t, "containers", "create", adapted, "files"); got.Code != 0 {
		t.Errorf("ctr refuses it: %s", got.Stderr)
	}
	report, err := inspect.Inspect(ctx, source, inspect.Named{Name: adapted, Root: other.Root}, inspect.Node{MaxModuleSize: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	if i := report.Images[0]; !strings.Contains(i.Runs, "other.wasm") || i.Ctr != "yes" {
		t.Errorf("it runs %q (%s), ctr: %s", i.Runs, i.Problem, i.Ctr)
	}
}

func TestAdaptRefuses(t *testing.T) {
	node := testnode.New(t, testnode.Options{})
	s := connect(t, node)
	ctx := store.In(t.Context(), node.Namespace)
	source := inspect.Containerd(s.Conn())
	for name, c := range map[string]struct {
		o     pack.Options
		adapt pack.AdaptOptions
		want  string
	}{
		"no layer":     {pack.Options{Format: format(t, "image")}, pack.AdaptOptions{}, "no Wasm layer"},
		"two layers":   {pack.Options{Format: format(t, "oras"), Modules: []string{write(t, "b.wasm", module+"\x00\x01\x00")}}, pack.AdaptOptions{}, "2 Wasm layers"},
		"no such name": {pack.Options{Format: format(t, "oras"), Modules: []string{write(t, "b.wasm", module+"\x00\x01\x00")}}, pack.AdaptOptions{Entrypoint: []string{"c.wasm"}}, "c.wasm"},
		"platform":     {pack.Options{Format: format(t, "oras")}, pack.AdaptOptions{Platform: "x"}, "os/architecture"},
	} {
		c.o.Modules = append(c.o.Modules, write(t, "a.wasm", module))
		image := pack1(t, c.o)
		if err := image.Import(ctx, s.Conn(), "example.com/x:v1", nil); err != nil {
			t.Fatal(err)
		}
		manifest, err := inspect.Manifest(ctx, source, image.Root, image.Root.Digest)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := pack.Adapt(ctx, manifest, source, c.adapt); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q", name, err, c.want)
		}
	}
}

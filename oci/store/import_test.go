package store_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/wasmshim/containerd-shim-wasm/entrypoint"
	"github.com/wasmshim/containerd-shim-wasm/internal/testimage"
	"github.com/wasmshim/containerd-shim-wasm/internal/testnode"
	"github.com/wasmshim/containerd-shim-wasm/oci/blob"
	"github.com/wasmshim/containerd-shim-wasm/oci/inspect"
	"github.com/wasmshim/containerd-shim-wasm/oci/pack"
	"github.com/wasmshim/containerd-shim-wasm/oci/store"
	"github.com/wasmshim/containerd-shim-wasm/wasm"
)

// connect returns a connection to a node, closed at the test's end.
func connect(t *testing.T, node *testnode.Node) *store.Store {
	t.Helper()
	s, err := store.Connect(node.Address(), node.Namespace)
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

// collect makes containerd collect its garbage before it returns: "images rm --sync" does so.
func collect(t *testing.T, node *testnode.Node, image string) {
	t.Helper()
	if got := node.Ctr(t, "images", "rm", "--sync", image); got.Code != 0 {
		t.Fatal(got.Stderr)
	}
}

const module = wasm.ModuleHeader

// write writes a file of that name in a new folder.
func write(t *testing.T, name, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

func format(t *testing.T, name string) pack.Format {
	t.Helper()
	f, err := pack.FormatNamed(name)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func packed(t *testing.T, o pack.Options) *pack.Image {
	t.Helper()
	image, err := pack.Make(o)
	if err != nil {
		t.Fatal(err)
	}
	return image
}

// An imported image survives containerd's garbage collection, and its blobs go when its name is removed.
func TestImport(t *testing.T) {
	node := testnode.New(t, testnode.Options{})
	s := connect(t, node)
	ctx := t.Context()
	small := packed(t, pack.Options{Modules: []string{write(t, "small.wasm", module)}})
	for _, f := range pack.Formats() {
		// Each image has its own module, so that no other image keeps it.
		path := write(t, "app.wasm", module+"\x00"+string(rune(len(f.Name)+1))+string(rune(len(f.Name)))+f.Name)
		image := packed(t, pack.Options{Modules: []string{path}, Format: f})
		ref := "example.com/imported/" + f.Name + ":v1"
		for range 2 { // the second time, every blob exists already
			if err := s.Import(ctx, ref, image, nil); err != nil {
				t.Fatal(err)
			}
		}
		if err := s.Import(ctx, "example.com/small:v1", small, nil); err != nil {
			t.Fatal(err)
		}
		collect(t, node, "example.com/small:v1")
		report, err := inspect.Inspect(ctx, s, inspect.Named{Name: ref, Root: image.Root}, inspect.Node{MaxModuleSize: 1 << 20})
		if err != nil {
			t.Fatal(err)
		}
		if problem := report.Images[0].Problem; problem != "" {
			t.Errorf("%s: %s", f.Name, problem)
		}
		collect(t, node, ref)
		for _, b := range image.Blobs {
			if b.MediaType == ocispec.MediaTypeEmptyJSON || b.Size == 2 {
				continue // the same in others
			}
			if _, err := s.Open(ctx, b.Descriptor); err == nil {
				t.Errorf("%s: blob %s outlives the image", f.Name, b.MediaType)
			}
		}
	}
	if left := node.Ctr(t, "leases", "ls", "-q"); strings.Contains(left.Stdout, "wasm-shim") {
		t.Errorf("leases that are left: %s", left.Stdout)
	}
}

// ctr refuses an artifact and accepts the adapted image, which survives the removal of the artifact.
func TestAdapt(t *testing.T) {
	node := testnode.New(t, testnode.Options{})
	s := connect(t, node)
	ctx := t.Context()
	const artifact, adapted = "example.com/artifact:v1", "example.com/adapted:v1"
	image := packed(t, pack.Options{Modules: []string{write(t, "app.wasm", module)}, Format: format(t, "artifact")})
	if err := s.Import(ctx, artifact, image, nil); err != nil {
		t.Fatal(err)
	}
	if got := node.Ctr(t, "containers", "create", artifact, "refused", "app.wasm"); got.Code == 0 {
		t.Error("ctr takes the artifact as it is: then nothing has to be adapted")
	}
	manifest, err := blob.Manifest(ctx, s, image.Root, image.Root.Digest)
	if err != nil {
		t.Fatal(err)
	}
	other, err := pack.Adapt(ctx, manifest, s, pack.AdaptOptions{Env: []string{"A=1"}})
	if err != nil {
		t.Fatal(err)
	}
	if len(other.Blobs) != 2 {
		t.Errorf("%d blobs are new, want a config and a manifest", len(other.Blobs))
	}
	if err := s.Import(ctx, adapted, other, nil); err != nil {
		t.Fatal(err)
	}
	collect(t, node, artifact)
	if got := node.Ctr(t, "containers", "create", adapted, "taken"); got.Code != 0 {
		t.Errorf("ctr refuses what was adapted: %s", got.Stderr)
	}
	found, err := s.FindImage(ctx, adapted)
	if err != nil {
		t.Fatal(err)
	}
	if chosen, err := found.Select(entrypoint.Parse("/app.wasm")); err != nil || chosen.Digest != digest.FromString(module) {
		t.Errorf("it runs %+v, %v", chosen, err)
	}
}

// An adapted image keeps its layers of files as the root file system.
func TestAdaptKeepsFiles(t *testing.T) {
	node := testnode.New(t, testnode.Options{})
	s := connect(t, node)
	ctx := t.Context()
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
	manifest, err := blob.Manifest(ctx, s, image.Root, image.Root.Digest)
	if err != nil {
		t.Fatal(err)
	}
	other, err := pack.Adapt(ctx, manifest, s, pack.AdaptOptions{Entrypoint: []string{"other.wasm"}})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Import(ctx, adapted, other, nil); err != nil {
		t.Fatal(err)
	}
	if got := node.Ctr(t, "containers", "create", adapted, "files"); got.Code != 0 {
		t.Errorf("ctr refuses it: %s", got.Stderr)
	}
	report, err := inspect.Inspect(ctx, s, inspect.Named{Name: adapted, Root: other.Root}, inspect.Node{MaxModuleSize: 1 << 20})
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
	ctx := t.Context()
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
		image := packed(t, c.o)
		if err := s.Import(ctx, "example.com/x:v1", image, nil); err != nil {
			t.Fatal(err)
		}
		manifest, err := blob.Manifest(ctx, s, image.Root, image.Root.Digest)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := pack.Adapt(ctx, manifest, s, c.adapt); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q", name, err, c.want)
		}
	}
}

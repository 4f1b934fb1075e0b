package test

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	goruntime "runtime"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/platforms"
	"github.com/opencontainers/go-digest"
	imagespecs "github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/wasmshim/containerd-shim-wasm/internal/repo"
	"github.com/wasmshim/containerd-shim-wasm/internal/testnode"
	"github.com/wasmshim/containerd-shim-wasm/oci"
)

// finding is a node with a client that makes images blob by blob and runs find on them.
type finding struct {
	*testing.T
	node   *testnode.Node
	client *client.Client
	ctx    context.Context // holds a lease: nothing that the test writes is garbage collected
}

func newFinding(t *testing.T, node *testnode.Node) finding {
	c := node.Client(t)
	ctx, done, err := c.WithLease(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := done(context.WithoutCancel(ctx)); err != nil {
			t.Error(err)
		}
	})
	return finding{t, node, c, ctx}
}

// blob writes a blob to the content store.
func (f finding) blob(mediaType string, data []byte) ocispec.Descriptor {
	f.Helper()
	d := ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(data), Size: int64(len(data))}
	if err := content.WriteBlob(f.ctx, f.client.ContentStore(), d.Digest.String(), bytes.NewReader(data), d); err != nil {
		f.Fatal(err)
	}
	return d
}

func (f finding) json(mediaType string, value any) ocispec.Descriptor {
	f.Helper()
	data, err := json.Marshal(value)
	if err != nil {
		f.Fatal(err)
	}
	return f.blob(mediaType, data)
}

// tar writes a layer of files with one file.
func (f finding) tar(name string) ocispec.Descriptor {
	f.Helper()
	layer := tarLayer(f.T, map[string][]byte{name: []byte(name)})
	reader, err := layer.Uncompressed()
	if err != nil {
		f.Fatal(err)
	}
	defer reader.Close()
	var data bytes.Buffer
	if _, err := data.ReadFrom(reader); err != nil {
		f.Fatal(err)
	}
	return f.blob(ocispec.MediaTypeImageLayer, data.Bytes())
}

// wasm writes a layer that is a module.
func (f finding) wasm(title string) ocispec.Descriptor {
	f.Helper()
	d := f.blob(oci.MediaTypeWasm, []byte("\x00asm\x01\x00\x00\x00"+f.Name()+title))
	d.Annotations = map[string]string{ocispec.AnnotationTitle: title}
	return d
}

// image writes a manifest with an image's configuration for a platform.
func (f finding) image(platform string, layers ...ocispec.Descriptor) ocispec.Descriptor {
	f.Helper()
	p := platforms.MustParse(platform)
	config := ocispec.Image{Platform: p, RootFS: ocispec.RootFS{Type: "layers", DiffIDs: []digest.Digest{}}}
	for _, l := range layers {
		if oci.IsFiles(l.MediaType) {
			config.RootFS.DiffIDs = append(config.RootFS.DiffIDs, l.Digest)
		}
	}
	d := f.manifest(f.json(ocispec.MediaTypeImageConfig, config), layers...)
	d.Platform = &p
	return d
}

func (f finding) manifest(config ocispec.Descriptor, layers ...ocispec.Descriptor) ocispec.Descriptor {
	f.Helper()
	return f.json(ocispec.MediaTypeImageManifest, ocispec.Manifest{
		Versioned: imagespecs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest, Config: config, Layers: layers,
	})
}

func (f finding) index(manifests ...ocispec.Descriptor) ocispec.Descriptor {
	f.Helper()
	return f.json(ocispec.MediaTypeImageIndex, ocispec.Index{
		Versioned: imagespecs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex, Manifests: manifests,
	})
}

// name creates an image in containerd's image store with target as its target, and returns the image's name.
func (f finding) name(target ocispec.Descriptor) string {
	f.Helper()
	image := images.Image{Name: "example.com/find/" + strings.ToLower(filepath.Base(f.Name())) + ":latest", Target: target}
	store := f.client.ImageService()
	if _, err := store.Create(f.ctx, image); err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() {
		if err := store.Delete(context.WithoutCancel(f.ctx), image.Name); err != nil {
			f.Error(err)
		}
	})
	return image.Name
}

// container makes a container of a named image, with the files of one of the image's manifests.
func (f finding) container(image string, manifest ocispec.Descriptor) string {
	f.Helper()
	id := strings.ReplaceAll(f.Name(), "/", "-")
	unpacked := client.NewImageWithPlatform(f.client, images.Image{Name: image, Target: manifest}, platforms.All)
	if err := unpacked.Unpack(f.ctx, "overlayfs"); err != nil {
		f.Fatal(err)
	}
	return f.add(id, specs.Spec{}, client.WithSnapshotter("overlayfs"), client.WithNewSnapshot(id, unpacked))
}

// artifactContainer makes a container of an image without files, as CRI does.
func (f finding) artifactContainer(image string) string {
	f.Helper()
	id := strings.ReplaceAll(f.Name(), "/", "-")
	if _, err := f.client.SnapshotService("overlayfs").Prepare(f.ctx, id, ""); err != nil {
		f.Fatal(err)
	}
	return f.add(id, specs.Spec{}, client.WithSnapshotter("overlayfs"), client.WithSnapshot(id), client.WithImageName(image))
}

func (f finding) add(id string, spec specs.Spec, opts ...client.NewContainerOpts) string {
	f.Helper()
	opts = append(opts, client.WithRuntime(runtime, nil), client.WithSpec(&spec))
	c, err := f.client.NewContainer(f.ctx, id, opts...)
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() {
		if err := c.Delete(context.WithoutCancel(f.ctx), client.WithSnapshotCleanup); err != nil {
			f.Error(err)
		}
	})
	return id
}

// run runs wasm-client find and returns what it prints on each output.
func (f finding) run(args ...string) (stdout, stderr string) {
	f.Helper()
	root, err := repo.Root()
	if err != nil {
		f.Fatal(err)
	}
	program := filepath.Join(root, "cmd", "containerd-shim-wasm-v1", "programs", "wasm-client")
	command := exec.CommandContext(f.Context(), program,
		append([]string{"find", "--address", f.node.Address(), "--namespace", f.node.Namespace}, args...)...)
	command.Env = []string{}
	var out, errs bytes.Buffer
	command.Stdout, command.Stderr = &out, &errs
	if err := command.Run(); err != nil && errs.Len() == 0 {
		f.Fatal(err)
	}
	return out.String(), errs.String()
}

func (f finding) found(args ...string) oci.Found {
	f.Helper()
	stdout, stderr := f.run(args...)
	if stderr != "" || strings.Count(stdout, "\n") != 1 {
		f.Fatalf("find %q: stdout %q, stderr %q", args, stdout, stderr)
	}
	var found oci.Found
	if err := json.Unmarshal([]byte(stdout), &found); err != nil {
		f.Fatal(err)
	}
	return found
}

// refused expects an error of one line that contains all words.
func (f finding) refused(words []string, args ...string) {
	f.Helper()
	stdout, stderr := f.run(args...)
	if stdout != "" || strings.Count(stderr, "\n") != 1 {
		f.Errorf("find %q: stdout %q, stderr %q", args, stdout, stderr)
	}
	for _, word := range words {
		if !strings.Contains(stderr, word) {
			f.Errorf("find %q says %q, which has no %q", args, stderr, word)
		}
	}
}

// has expects the image, the manifest, its platform and its modules. The content of each module's file must
// match the module's digest.
func (f finding) has(found oci.Found, image string, manifest ocispec.Descriptor, platform string, layers ...ocispec.Descriptor) {
	f.Helper()
	if found.Image != image || found.Manifest != manifest.Digest.String() || found.Platform != platform || len(found.Modules) != len(layers) {
		f.Fatalf("found %+v, want image %s, manifest %s, platform %q, %d modules", found, image, manifest.Digest, platform, len(layers))
	}
	for i, m := range found.Modules {
		l := layers[i]
		if m.Name != l.Annotations[ocispec.AnnotationTitle] || m.Digest != l.Digest || m.Size != l.Size || m.MediaType != l.MediaType {
			f.Errorf("module %d is %+v, want %+v", i, m, l)
		}
		data, err := os.ReadFile(m.Path)
		if err != nil {
			f.Fatal(err)
		}
		if digest.FromBytes(data) != l.Digest {
			f.Errorf("%s does not hold %s", m.Path, l.Digest)
		}
	}
}

// eachFinding runs test on every containerd.
func eachFinding(t *testing.T, test func(f finding)) {
	nodes.EachVersion(t, func(t *testing.T, node *testnode.Node) { test(newFinding(t, node)) })
}

var native = "linux/" + goruntime.GOARCH

func TestFindFilesOnly(t *testing.T) {
	eachFinding(t, func(f finding) {
		manifest := f.image(native, f.tar("app.wasm"))
		image := f.name(manifest)
		f.has(f.found("--container", f.container(image, manifest)), image, manifest, native)
		f.has(f.found("--image", image), image, manifest, native)
	})
}

func TestFindLayer(t *testing.T) {
	eachFinding(t, func(f finding) {
		wasm := f.wasm("app.wasm")
		manifest := f.image("wasi/wasm", f.tar("data"), wasm)
		image := f.name(manifest)
		f.has(f.found("--container", f.container(image, manifest)), image, manifest, "wasi/wasm", wasm)
	})
}

func TestFindArtifact(t *testing.T) {
	eachFinding(t, func(f finding) {
		wasm := f.wasm("app.wasm")
		config := f.json(oci.MediaTypeWasmConfigV0, map[string]any{"os": "wasip1", "architecture": "wasm"})
		manifest := f.manifest(config, wasm)
		image := f.name(manifest)
		f.has(f.found("--container", f.artifactContainer(image)), image, manifest, "wasip1/wasm", wasm)
	})
}

// In an index, find selects the manifest whose files the container has, whatever its platform.
func TestFindInIndex(t *testing.T) {
	eachFinding(t, func(f finding) {
		first, second := f.wasm("first.wasm"), f.wasm("second.wasm")
		foreign := f.image("wasi/wasm", f.tar("foreign"), first)
		own := f.image(native, f.tar("own"), second)
		image := f.name(f.index(foreign, own))
		f.has(f.found("--container", f.container(image, own)), image, own, native, second)
		f.has(f.found("--image", image), image, foreign, "wasi/wasm", first)
	})
}

// containerd may give a container in a user namespace files with shifted owners, in a snapshot between the
// container's own and the image's.
func TestFindRemapped(t *testing.T) {
	eachFinding(t, func(f finding) {
		wasm := f.wasm("app.wasm")
		other, own := f.image(native, f.tar("other")), f.image("wasi/wasm", f.tar("own"), wasm)
		image := f.name(f.index(other, own))
		unpacked := client.NewImageWithPlatform(f.client, images.Image{Name: image, Target: own}, platforms.All)
		if err := unpacked.Unpack(f.ctx, "overlayfs"); err != nil {
			f.Fatal(err)
		}
		users := []specs.LinuxIDMapping{{ContainerID: 0, HostID: 100000, Size: 65536}}
		id := strings.ReplaceAll(f.Name(), "/", "-")
		f.add(id, specs.Spec{Linux: &specs.Linux{UIDMappings: users, GIDMappings: users}},
			client.WithSnapshotter("overlayfs"), client.WithUserNSRemappedSnapshot(id, unpacked, users, users))
		f.has(f.found("--container", id), image, own, "wasi/wasm", wasm)
	})
}

func TestFindNoPlatform(t *testing.T) {
	eachFinding(t, func(f finding) {
		absent := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: digest.FromString("absent"), Size: 6}
		other := absent
		absent.Platform = &ocispec.Platform{OS: "windows", Architecture: "amd64"}
		other.Platform = &ocispec.Platform{OS: "linux", Architecture: "arm", Variant: "v7"}
		image := f.name(f.index(absent, other))
		f.refused([]string{image, "windows/amd64", "linux/arm/v7"}, "--image", image)
	})
}

func TestFindMissingLayer(t *testing.T) {
	eachFinding(t, func(f finding) {
		wasm := f.wasm("app.wasm")
		image := f.name(f.image("wasi/wasm", wasm))
		if err := f.client.ContentStore().Delete(f.ctx, wasm.Digest); err != nil {
			f.Fatal(err)
		}
		f.refused([]string{image, wasm.Digest.String(), "pull the image again"}, "--image", image)
	})
}

func TestFindTruncatedLayer(t *testing.T) {
	eachFinding(t, func(f finding) {
		wasm := f.wasm("app.wasm")
		image := f.name(f.image("wasi/wasm", wasm))
		path := f.found("--image", image).Modules[0].Path
		if err := os.Truncate(path, wasm.Size-1); err != nil {
			f.Fatal(err)
		}
		f.refused([]string{image, wasm.Digest.String(), "pull it again"}, "--image", image)
	})
}

// An image whose name now refers to other content is not the container's image.
func TestFindMovedName(t *testing.T) {
	eachFinding(t, func(f finding) {
		old, moved := f.image("wasi/wasm", f.tar("old"), f.wasm("old.wasm")), f.image("wasi/wasm", f.tar("new"), f.wasm("new.wasm"))
		image := f.name(moved)
		f.refused([]string{image, "make the container again"}, "--container", f.container(image, old))
	})
}

func TestFindNothing(t *testing.T) {
	eachFinding(t, func(f finding) {
		f.refused([]string{"example.com/none:latest", "pull it again"}, "--image", "example.com/none:latest")
		f.refused([]string{"container none"}, "--container", "none")
		if found := f.found("--container", f.add("TestFindNothing", specs.Spec{})); found.Image != "" || len(found.Modules) != 0 {
			f.Errorf("a container without an image: %+v", found)
		}
	})
}

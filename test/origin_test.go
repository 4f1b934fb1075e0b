package test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"path/filepath"
	goruntime "runtime"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/errdefs"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/opencontainers/go-digest"
	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/wasmshim/containerd-shim-wasm/internal/testguest"
	"github.com/wasmshim/containerd-shim-wasm/internal/testimage"
	"github.com/wasmshim/containerd-shim-wasm/internal/testnode"
	"github.com/wasmshim/containerd-shim-wasm/internal/testregistry"
)

// saying returns the probe as a module that prints its version when it sleeps: version 1 prints "module-1".
func saying(t *testing.T, version int) []byte {
	t.Helper()
	probe := []byte(onHost(t, testguest.Build(t, "probe")))
	old, own := []byte("sleeping\x00"), fmt.Appendf(nil, "module-%d\x00", version)
	if bytes.Count(probe, old) != 1 || len(old) != len(own) {
		t.Fatalf("%q cannot take the place of %q in the probe", own, old)
	}
	return bytes.Replace(probe, old, own, 1)
}

func says(version int) string { return fmt.Sprintf("module-%d\n", version) }

// colliding is an image with the same configuration as many others.
type colliding struct {
	ref     string // with a tag
	digest  string // with a digest
	version int    // of the module
}

// pushColliding pushes an image of the named format, which holds that version of the module.
func pushColliding(t *testing.T, registry *testregistry.Registry, format, repository string, version int) colliding {
	t.Helper()
	image := named(t, format).Build(saying(t, version))
	ref := registry.Push(t, repository, image)
	name, _, _ := strings.Cut(repository, ":")
	return colliding{ref: ref, digest: registry.Ref(name + "@" + image.Root.Digest.String()), version: version}
}

// asKubelet names an image as a kubelet does: by CRI's id, and by the reference from the pod's spec.
func asKubelet(id, ref string) *criapi.ImageSpec {
	return &criapi.ImageSpec{Image: id, UserSpecifiedImage: ref}
}

// asCrictl names an image as crictl does.
func asCrictl(_, ref string) *criapi.ImageSpec { return &criapi.ImageSpec{Image: ref} }

func (p *pod) pull(ref string) (id string) {
	p.t.Helper()
	id, err := p.cri.Pull(p.ctx, ref)
	if err != nil {
		p.t.Fatal(err)
	}
	return id
}

// sleeping makes a container that keeps running.
func (p *pod) sleeping(image *criapi.ImageSpec, command ...string) member {
	p.t.Helper()
	w := way{image: image.Image, programs: map[string][]string{"colliding": append(command, "sleep", "1000")}}
	return p.add(w, "colliding", func(c *criapi.ContainerConfig) { c.Image = image })
}

// expectVersion checks which module's output is in a running container's log and comes from its execs.
func (m member) expectVersion(version int, command string) {
	m.t.Helper()
	m.await("module-")
	if got, want := m.output(), says(version); got != want {
		m.t.Errorf("%s printed %q, want %q", m.id, got, want)
	}
	if got, want := m.exec(command, "sleep", "0"), says(version)+"awake\n"; got != want {
		m.t.Errorf("an exec in %s printed %q, want %q", m.id, got, want)
	}
}

// expectRefused checks that a container does not start, and that the error has all words.
func (m member) expectRefused(words ...string) {
	m.t.Helper()
	_, err := m.cri.StartContainer(m.ctx, &criapi.StartContainerRequest{ContainerId: m.id})
	if err == nil {
		m.t.Errorf("%s started", m.id)
		return
	}
	for _, word := range words {
		if !strings.Contains(err.Error(), word) {
			m.t.Errorf("%s: %v, which has no %q", m.id, err, word)
		}
	}
}

// CRI treats images with equal configurations as one image; most artifacts have equal configurations. A
// container and its execs still run the module of the image that the pod names, by a tag or by a digest, in
// whichever order the images were pulled. If the shim does not get the reference from the pod, nothing runs.
func TestCollidingImages(t *testing.T) {
	const command = "app.wasm"
	registry := testregistry.Start(t)
	all := []colliding{
		pushColliding(t, registry, "artifact-oras", "tenant1/app:1", 1),
		pushColliding(t, registry, "artifact-oras", "tenant1/app:2", 2),
		pushColliding(t, registry, "artifact-oras", "tenant2/app:1", 3),
		// This name sorts before all others.
		pushColliding(t, registry, "artifact-oras", "a/hostile:1", 4),
	}
	eachVersionWithPods(t, func(t *testing.T, node *testnode.Node) {
		registry.ServeIn(t, node.PID())
		for _, order := range []string{"forwards", "backwards"} {
			t.Run(order, func(t *testing.T) {
				p := runPod(t, node, ourHandler, nil)
				id := ""
				for _, image := range all {
					for _, ref := range []string{image.ref, image.digest} {
						id = p.pull(ref)
					}
				}
				defer func() {
					if err := p.cri.Remove(p.ctx, id); err != nil {
						t.Error(err)
					}
				}()
				for _, image := range all {
					for _, ref := range []string{image.ref, image.digest} {
						p.sleeping(asCrictl(id, ref), command).expectRuns(image.version, command)
						m := p.sleeping(asKubelet(id, ref), command)
						if node.Version == "1.7" { // it does not pass on the reference from the pod
							m.expectRefused("have the same configuration", registry.Addr, id)
							continue
						}
						m.expectRuns(image.version, command)
					}
				}
			})
			slices.Reverse(all)
		}
	})
}

// expectRuns starts the container and checks that it and its execs run the given version of the module.
func (m member) expectRuns(version int, command string) {
	m.t.Helper()
	m.start()
	m.expectVersion(version, command)
	m.remove()
}

// A running container and its execs keep the image that the container was made of, also when the image's name
// moves or the image is removed.
func TestExecsStayOfTheirImage(t *testing.T) {
	const command = "app.wasm"
	registry := testregistry.Start(t)
	eachVersionWithPods(t, func(t *testing.T, node *testnode.Node) {
		registry.ServeIn(t, node.PID())
		first := pushColliding(t, registry, "artifact-oras", "moved/app:latest", 1)
		p := runPod(t, node, ourHandler, nil)
		p.pull(first.ref)
		before := p.sleeping(asCrictl("", first.ref), command)
		before.start()
		before.expectVersion(1, command)

		second := pushColliding(t, registry, "artifact-oras", "moved/app:latest", 2)
		id := p.pull(second.ref)
		before.expectVersion(1, command)
		after := p.sleeping(asCrictl("", second.ref), command)
		after.start()
		after.expectVersion(2, command)

		if err := p.cri.Remove(p.ctx, id); err != nil {
			t.Fatal(err)
		}
		before.expectVersion(1, command)
		after.expectVersion(2, command)

		// A restart is a new container with the reference from the pod. A kubelet pulls that reference again.
		before.remove()
		after.remove()
		id = p.pull(second.ref)
		p.sleeping(asCrictl("", second.ref), command).expectRuns(2, command)
		if err := p.cri.Remove(p.ctx, id); err != nil {
			t.Fatal(err)
		}
	})
}

// CRI can always distinguish the images that image pack writes. So a kubelet's pod runs on every containerd,
// whatever else is on the node.
func TestPackedImagesDoNotCollide(t *testing.T) {
	formats := map[string]string{
		"layer": "/app.wasm", "runwasi": "/app.wasm", "artifact": "app.wasm", "oras": "app.wasm", "wasm-to-oci": "app.wasm",
	}
	registry := testregistry.Start(t)
	refs := map[string][]string{}
	for format := range formats {
		for version := range 2 {
			path := put(t, string(saying(t, version)), t.TempDir(), "app.wasm")
			ref := registry.Ref(fmt.Sprintf("packed/%s:%d", format, version))
			output, err := shimCommand(t, "image", "pack", "--format", format, "--push", "--plain-http", "-t", ref, path).CombinedOutput()
			if err != nil {
				t.Fatalf("image pack: %v: %s", err, output)
			}
			refs[format] = append(refs[format], ref)
		}
	}
	eachVersionWithPods(t, func(t *testing.T, node *testnode.Node) {
		registry.ServeIn(t, node.PID())
		for format, command := range formats {
			t.Run(format, func(t *testing.T) {
				p := runPod(t, node, ourHandler, nil)
				ids := []string{p.pull(refs[format][0]), p.pull(refs[format][1])}
				for version, id := range ids {
					p.sleeping(asKubelet(id, refs[format][version]), command).expectRuns(version, command)
				}
				for _, id := range ids {
					if err := p.cri.Remove(p.ctx, id); err != nil {
						t.Error(err)
					}
				}
			})
		}
	})
}

// configOf returns the configuration of an image in a registry.
func configOf(t *testing.T, ref string) []byte {
	t.Helper()
	at, err := name.ParseReference(ref)
	if err != nil {
		t.Fatal(err)
	}
	image, err := remote.Image(at)
	if err != nil {
		t.Fatal(err)
	}
	config, err := image.RawConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	return config
}

// If a configuration lists its layers, the list decides which image it belongs to. A copy of the configuration
// with other layers is another image, and does not prevent a pod from running its own.
func TestCopiedConfiguration(t *testing.T) {
	const command = "/app.wasm"
	registry := testregistry.Start(t)
	own := registry.Ref("own/app:1")
	path := put(t, string(saying(t, 1)), t.TempDir(), "app.wasm")
	output, err := shimCommand(t, "image", "pack", "--format", "layer", "--push", "--plain-http", "-t", own, path).CombinedOutput()
	if err != nil {
		t.Fatalf("image pack: %v: %s", err, output)
	}
	registry.Push(t, "a/copy:1", testimage.WithConfig(configOf(t, own), saying(t, 2)))
	eachVersionWithPods(t, func(t *testing.T, node *testnode.Node) {
		registry.ServeIn(t, node.PID())
		p := runPod(t, node, ourHandler, nil)
		id := p.pull(own)
		if other := p.pull(registry.Ref("a/copy:1")); other != id {
			t.Fatalf("CRI tells %s and %s apart", id, other)
		}
		p.sleeping(asKubelet(id, own), command).expectRuns(1, command)
		p.sleeping(&criapi.ImageSpec{Image: id}, command).expectRuns(1, command)
		if err := p.cri.Remove(p.ctx, id); err != nil {
			t.Error(err)
		}
	})
}

// A container that is started several times runs the same image every time, also when the image's name moves or
// is removed. The needed blobs of the image are removed with the container.
func TestStartsStayOfTheirImage(t *testing.T) {
	const ref, id = "example.com/origin/app:latest", "origin"
	format := named(t, "layer-"+strings.ReplaceAll(testimage.Native(), "/", "-"))
	tars := make([]string, 2)
	layers := make([]digest.Digest, 2)
	for version := range tars {
		image := format.Build(saying(t, version))
		tars[version], layers[version] = filepath.Join(t.TempDir(), "image.tar"), image.Wasm()[0]
		if err := image.WriteTar(tars[version], ref); err != nil {
			t.Fatal(err)
		}
	}
	nodes.EachVersion(t, func(t *testing.T, node *testnode.Node) {
		node.NoLeaks(t)
		node.Import(t, tars[0])
		if got := node.Ctr(t, "containers", "create", "--runtime", runtime, ref, id, "app.wasm", "sleep", "0"); got.Code != 0 {
			t.Fatalf("ctr containers create: %s", got.Stderr)
		}
		expect := func(what string) {
			t.Helper()
			check(t, what, node.Ctr(t, "tasks", "start", id), testnode.Result{Stdout: says(0) + "awake\n"})
			node.Ctr(t, "tasks", "rm", id)
		}
		expect("the first start")
		node.Import(t, tars[1])
		expect("the name has moved")
		if got := node.Ctr(t, "images", "rm", "--sync", ref); got.Code != 0 {
			t.Fatalf("ctr images rm: %s", got.Stderr)
		}
		expect("the name is gone")
		hasBlob(t, node, layers[0], true)
		if got := node.Ctr(t, "containers", "rm", id); got.Code != 0 {
			t.Fatalf("ctr containers rm: %s", got.Stderr)
		}
		// Any delete with images.SynchronousDelete runs the garbage collector.
		store := node.Client(t).ImageService()
		ctx := namespaces.WithNamespace(context.Background(), node.Namespace)
		if err := store.Delete(ctx, "example.com/origin/none", images.SynchronousDelete()); err != nil && !errdefs.IsNotFound(err) {
			t.Fatal(err)
		}
		if !eventually(func() bool { return !findBlob(t, node, layers[0]) }) {
			t.Error("the layer outlives its container")
		}
	})
}

// If a name moves between a container's creation and its first start, it no longer names the container's image.
func TestNameMovesBeforeTheFirstStart(t *testing.T) {
	const ref, id = "example.com/origin/packed:latest", "packed"
	tars := make([]string, 2)
	for version := range tars {
		path := put(t, string(saying(t, version)), t.TempDir(), "app.wasm")
		tars[version] = filepath.Join(t.TempDir(), "image.tar")
		output, err := shimCommand(t, "image", "pack", "--format", "layer", "--platform", testimage.Native(), "-t", ref, "-o", tars[version], path).CombinedOutput()
		if err != nil {
			t.Fatalf("image pack: %v: %s", err, output)
		}
	}
	nodes.EachVersion(t, func(t *testing.T, node *testnode.Node) {
		node.NoLeaks(t)
		node.Import(t, tars[0])
		if got := node.Ctr(t, "containers", "create", "--runtime", runtime, ref, id, "/app.wasm", "sleep", "0"); got.Code != 0 {
			t.Fatalf("ctr containers create: %s", got.Stderr)
		}
		node.Import(t, tars[1])
		if got := node.Ctr(t, "tasks", "start", id); got.Code == 0 || !strings.Contains(got.Stderr, "make the container again") {
			t.Errorf("ctr tasks start: %+v", got)
		}
		if got := node.Ctr(t, "containers", "rm", id); got.Code != 0 {
			t.Errorf("ctr containers rm: %s", got.Stderr)
		}
	})
}

func findBlob(t *testing.T, node *testnode.Node, blob digest.Digest) bool {
	t.Helper()
	ctx := namespaces.WithNamespace(context.Background(), node.Namespace)
	_, err := node.Client(t).ContentStore().Info(ctx, blob)
	if err != nil && !errdefs.IsNotFound(err) {
		t.Fatal(err)
	}
	return err == nil
}

func hasBlob(t *testing.T, node *testnode.Node, blob digest.Digest, want bool) {
	t.Helper()
	if got := findBlob(t, node, blob); got != want {
		t.Errorf("blob %s is there: %t, want %t", blob, got, want)
	}
}

// A command that names no module of the image is refused with a clear error, in a container and in an exec. The
// image's program never runs instead.
func TestCommandNamesNoModule(t *testing.T) {
	registry := testregistry.Start(t)
	titled := pushColliding(t, registry, "artifact-oras", "titled/app:1", 1)
	untitled := pushColliding(t, registry, "layer-application-wasm", "untitled/app:1", 2)
	eachVersionWithPods(t, func(t *testing.T, node *testnode.Node) {
		registry.ServeIn(t, node.PID())
		p := runPod(t, node, ourHandler, nil)
		for _, image := range []colliding{titled, untitled} {
			id := p.pull(image.ref)
			m := p.sleeping(asCrictl(id, image.ref), "app.wasm")
			m.start()
			m.expectVersion(image.version, "/app.wasm")
			m.expectVersion(image.version, "/") // the command in manifests for other runtimes
			for _, command := range [][]string{{"sh", "-c", "id"}, {"/bin/true"}, {"cat", "/tmp/ready"}, {"/typo.wasm"}, {"bogus"}} {
				_, err := p.cri.ExecSync(p.ctx, &criapi.ExecSyncRequest{ContainerId: m.id, Cmd: command, Timeout: int64(taskPatience.Seconds())})
				if err == nil || !strings.Contains(err.Error(), "does not name: its name is app.wasm") {
					t.Errorf("exec %q: %v", command, err)
				}
				p.sleeping(asCrictl(id, image.ref), command...).expectRefused(fmt.Sprintf("%q does not name: its name is app.wasm", command[0]))
			}
			p.sleeping(asCrictl(id, image.ref), "/").expectRuns(image.version, "/")
			m.remove()
			if err := p.cri.Remove(p.ctx, id); err != nil {
				t.Error(err)
			}
		}
	})
}

// An image's labels, which clients copy to containers, cannot make a container run another image's module.
func TestImageCannotNote(t *testing.T) {
	const victim, hostile = "example.com/origin/victim:latest", "example.com/origin/hostile:latest"
	format := named(t, "layer-"+strings.ReplaceAll(testimage.Native(), "/", "-"))
	theirs := format.Build(saying(t, 1))
	note, err := json.Marshal(map[string]any{
		"image": victim, "target": theirs.Root.Digest, "manifest": theirs.Root.Digest, "size": theirs.Root.Size,
	})
	if err != nil {
		t.Fatal(err)
	}
	config, err := json.Marshal(map[string]any{
		"os": "linux", "architecture": goruntime.GOARCH, "rootfs": map[string]any{"type": "layers", "diff_ids": []string{}},
		"config": map[string]any{"Entrypoint": []string{"app.wasm"}, "Labels": map[string]string{
			"wasm.shim/image":                        string(note),
			"containerd.io/gc.ref.content.wasm-shim": theirs.Root.Digest.String(),
			"io.cri-containerd.container.metadata":   "{}",
		}},
	})
	if err != nil {
		t.Fatal(err)
	}
	both := map[string]*testimage.Image{victim: theirs, hostile: testimage.WithConfig(config, saying(t, 2))}
	nodes.EachVersion(t, func(t *testing.T, node *testnode.Node) {
		node.NoLeaks(t)
		for ref, image := range both {
			tar := filepath.Join(t.TempDir(), "image.tar")
			if err := image.WriteTar(tar, ref); err != nil {
				t.Fatal(err)
			}
			node.Import(t, tar)
		}
		run := []string{"run", "--rm", "--runtime", runtime, hostile, "hostile", "app.wasm", "sleep", "0"}
		got := node.Ctr(t, run...)
		got.Stderr = "" // ctr warns of labels that it does not copy
		check(t, "ctr run", got, testnode.Result{Stdout: says(2) + "awake\n"})
	})
}

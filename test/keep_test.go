package test

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/wasmshim/containerd-shim-wasm/internal/testguest"
	"github.com/wasmshim/containerd-shim-wasm/internal/testnode"
)

// shimVerb runs one of the shim's verbs for users, and returns what it prints.
func shimVerb(t *testing.T, args ...string) string {
	t.Helper()
	output, err := shimCommand(t, args...).Output()
	if err != nil {
		var exit *exec.ExitError
		errors.As(err, &exit)
		t.Fatalf("%s: %v: %+v", strings.Join(args, " "), err, exit)
	}
	return string(output)
}

// ownCode lists the code that is in files in the cache, not blobs of containerd.
func ownCode(t *testing.T, cache string) []string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(cache, "*", "*.cwasm"))
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// compiledBlobs returns the digests of the blobs that images refer to as compiled code of a module.
func compiledBlobs(t *testing.T, node *testnode.Node, guest string) []string {
	t.Helper()
	code, err := os.ReadFile(guest)
	if err != nil {
		t.Fatal(err)
	}
	name := fmt.Sprintf(".%x", sha256.Sum256(code))[:33]
	var digests []string
	for line := range strings.Lines(node.Ctr(t, "content", "list").Stdout) {
		for label := range strings.SplitSeq(strings.Join(strings.Fields(line), ","), ",") {
			if _, digest, ok := strings.Cut(label, "=sha256:"); ok && strings.Contains(label, "gc.ref.content.wasm-shim.") && strings.Contains(label, name) {
				digests = append(digests, digest)
			}
		}
	}
	return digests
}

func blobFile(node *testnode.Node, digest string) string {
	return filepath.Join(node.Root(), "io.containerd.content.v1.content", "blobs", "sha256", digest)
}

// containerd's own garbage collection removes the code that was compiled for an image with the last image that
// has that module. Running containers are not affected.
func TestCompiledCodeGoesWithItsImages(t *testing.T) {
	guest := ownGuest(t, "probe")
	const first, second = "example.com/keep/first:latest", "example.com/keep/second:latest"
	images := map[string]string{}
	for _, ref := range []string{first, second} {
		images[ref] = testguest.Image(t, ref, testguest.ImageOpts{
			Files: map[string]string{"/app.wasm": guest}, Texts: map[string]string{"/name": ref}, Entrypoint: []string{"/app.wasm"},
		})
	}
	nodes.EachVersion(t, func(t *testing.T, node *testnode.Node) {
		for _, tar := range images {
			node.Import(t, tar)
		}
		node.NoLeaks(t)
		cache, file := newCache(t)
		list := func() string { return shimVerb(t, "cache", "ls", "--config", file) }
		run := func(ref string) {
			t.Helper()
			got := node.Ctr(t, "run", "--rm", "--runtime", runtime, "--runtime-config-path", file, ref, "short", "/app.wasm", "exit", "0")
			if got != (testnode.Result{}) {
				t.Fatalf("%+v", got)
			}
		}
		var blobs []string
		kept := func(refs ...string) func() bool {
			return func() bool {
				blobs = compiledBlobs(t, node, guest)
				text := list()
				for _, ref := range refs {
					if !strings.Contains(text, node.Namespace+"/"+ref) {
						return false
					}
				}
				return len(blobs) == len(refs) && len(ownCode(t, cache)) == 0
			}
		}
		if !untilKept(t, cache, func() { run(first) }, kept(first)) {
			t.Fatalf("the first image does not keep the compiled module: blobs %q, own %q\n%s", blobs, ownCode(t, cache), list())
		}
		got := node.Ctr(t, "run", "--detach", "--runtime", runtime, "--runtime-config-path", file, second, "long", "/app.wasm", "sleep", "1000")
		t.Cleanup(func() {
			node.Ctr(t, "tasks", "delete", "--force", "long")
			node.Ctr(t, "containers", "delete", "long")
		})
		if got.Code != 0 {
			t.Fatalf("%+v", got)
		}
		if !eventually(kept(first, second)) {
			t.Fatalf("the second image does not keep the compiled module: blobs %q, own %q\n%s", blobs, ownCode(t, cache), list())
		}
		if blobs[0] != blobs[1] {
			t.Errorf("the images keep %q", blobs)
		}
		blob := blobFile(node, blobs[0])
		if text := list(); !strings.Contains(text, "yes") || !strings.Contains(text, "current") {
			t.Errorf("a container uses the module:\n%s", text)
		}

		node.Ctr(t, "images", "remove", "--sync", first)
		if _, err := os.Stat(blob); err != nil {
			t.Errorf("the second image's module went with the first image: %v", err)
		}
		run(second)
		node.Ctr(t, "images", "remove", "--sync", second)
		if _, err := os.Stat(blob); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("the module is still there without its images: %v", err)
		}
		if text := list(); !strings.HasPrefix(text, "MODULE") || !strings.Contains(text, "\n0 modules") {
			t.Errorf("listed without images:\n%s", text)
		}
		// The container continues to run the code that it has mapped.
		if text := node.Ctr(t, "tasks", "list").Stdout; !strings.Contains(text, "RUNNING") {
			t.Errorf("the container does not run any more:\n%s", text)
		}
		if got := node.Ctr(t, "tasks", "exec", "--exec-id", "look", "long", "/app.wasm", "exit", "7"); got.Code != 7 {
			t.Errorf("its module runs no more: %+v", got)
		}
	})
}

// What exceeds the limit is removed, also from containerd's content store, but not while a container runs it.
// The same is true for what is pruned.
func TestCacheWithinItsLimit(t *testing.T) {
	guest := ownGuest(t, "probe")
	const ref = "example.com/keep/limited:latest"
	tar := testguest.Image(t, ref, testguest.ImageOpts{Files: map[string]string{"/app.wasm": guest}, Entrypoint: []string{"/app.wasm"}})
	nodes.EachVersion(t, func(t *testing.T, node *testnode.Node) {
		node.Import(t, tar)
		node.NoLeaks(t)
		cache, file := newCache(t, `cache_size = "1KiB"`)
		roomy := shimConfig(t, fmt.Sprintf("cache_dir = %q", cache))
		run := func(file string, args ...string) {
			t.Helper()
			got := node.Ctr(t, append([]string{"run", "--runtime", runtime, "--runtime-config-path", file}, args...)...)
			if got.Code != 0 {
				t.Fatalf("%+v", got)
			}
		}
		empty := func() bool {
			return strings.Contains(shimVerb(t, "cache", "ls", "--config", file), "\n0 modules") && len(compiledBlobs(t, node, guest)) == 0 && len(ownCode(t, cache)) == 0
		}
		if !untilKept(t, cache, func() { run(file, "--rm", ref, "short", "/app.wasm", "exit", "0") }, empty) {
			t.Errorf("more than the limit is kept: %q\n%s", compiledBlobs(t, node, guest), shimVerb(t, "cache", "ls", "--config", file))
		}

		t.Cleanup(func() {
			node.Ctr(t, "tasks", "delete", "--force", "long")
			node.Ctr(t, "containers", "delete", "long")
		})
		run(roomy, "--detach", ref, "long", "/app.wasm", "sleep", "1000")
		// The keeper still runs for a while: it waits until the container gives up the file.
		if !eventually(func() bool {
			return len(compiledBlobs(t, node, guest)) == 1 && strings.Contains(shimVerb(t, "cache", "ls", "--config", file), node.Namespace+"/"+ref)
		}) {
			t.Fatal("the image does not keep the module")
		}
		// The first container still maps the file that was compiled for it; the next one maps the blob.
		run(roomy, "--detach", ref, "longer", "/app.wasm", "sleep", "1000")
		blob := blobFile(node, compiledBlobs(t, node, guest)[0])
		if text := shimVerb(t, "cache", "prune", "--all", "--config", file); text != "freed 0.0KiB\n" {
			t.Errorf("what is in use was pruned: %s", text)
		}
		node.Ctr(t, "tasks", "delete", "--force", "longer")
		node.Ctr(t, "containers", "delete", "longer")
		if text := shimVerb(t, "cache", "prune", "--config", file); text != "freed 0.0KiB\n" {
			t.Errorf("what this shim made was pruned: %s", text)
		}
		if text := shimVerb(t, "cache", "prune", "--all", "--config", file); !strings.Contains(text, " /app.wasm ") || !strings.Contains(text, "\nfreed ") {
			t.Errorf("pruned: %s", text)
		}
		if _, err := os.Stat(blob); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("the blob is still there: %v", err)
		}
	})
}

// A module that was compiled ahead of time is used by the first container.
func TestCacheWarm(t *testing.T) {
	guest := ownGuest(t, "hello-c")
	const ref = "example.com/keep/warm:latest"
	tar := testguest.Image(t, ref, testguest.ImageOpts{Files: map[string]string{"/bin/app.wasm": guest}, Entrypoint: []string{"app.wasm"}})
	nodes.EachVersion(t, func(t *testing.T, node *testnode.Node) {
		node.Import(t, tar)
		node.NoLeaks(t)
		_, file := newCache(t)
		warm := func() string {
			return shimVerb(t, "cache", "warm", "--address", node.Address(), "--namespace", node.Namespace, "--config", file, ref)
		}
		if got := warm(); got != "/bin/app.wasm compiled\n" {
			t.Errorf("said %q", got)
		}
		if got := warm(); got != "/bin/app.wasm was compiled already\n" {
			t.Errorf("said %q", got)
		}
		if len(compiledBlobs(t, node, guest)) != 1 {
			t.Errorf("the image keeps %q", compiledBlobs(t, node, guest))
		}
		log, err := os.Stat(node.Log())
		if err != nil {
			t.Fatal(err)
		}
		got := node.Ctr(t, "run", "--rm", "--runtime", runtime, "--runtime-config-path", file, ref, "hello")
		if got.Code != 0 || !strings.Contains(got.Stdout, "hello") {
			t.Errorf("%+v", got)
		}
		if text := node.LogTail(log.Size(), 1000); strings.Contains(text, "msg=compiled") {
			t.Error("the container compiled the module again")
		}
		if left := node.Ctr(t, "snapshots", "list"); strings.Contains(left.Stdout, "View") {
			t.Errorf("a view was left: %s", left.Stdout)
		}
	})
}

// The same for a layer that is the module itself.
func TestCacheWarmLayer(t *testing.T) {
	guest := ownGuest(t, "hello-c")
	const ref = "example.com/keep/layer:latest"
	nodes.EachVersion(t, func(t *testing.T, node *testnode.Node) {
		shimVerb(t, "image", "pack", guest, "-t", ref, "--format", "layer", "--import", "--address", node.Address(), "--namespace", node.Namespace)
		node.NoLeaks(t)
		_, file := newCache(t)
		warm := func() string {
			return shimVerb(t, "cache", "warm", "--address", node.Address(), "--namespace", node.Namespace, "--config", file, ref)
		}
		if got := warm(); !strings.HasSuffix(got, " compiled\n") {
			t.Errorf("said %q", got)
		}
		if got := warm(); !strings.HasSuffix(got, " was compiled already\n") {
			t.Errorf("said %q", got)
		}
		if len(compiledBlobs(t, node, guest)) != 1 {
			t.Errorf("the image keeps %q", compiledBlobs(t, node, guest))
		}
		got := node.Ctr(t, "run", "--rm", "--runtime", runtime, "--runtime-config-path", file, ref, "hello")
		if got.Code != 0 || !strings.Contains(got.Stdout, "hello") {
			t.Errorf("%+v", got)
		}
		node.Ctr(t, "images", "remove", "--sync", ref)
		if text := shimVerb(t, "cache", "ls", "--config", file); !strings.Contains(text, "\n0 modules") {
			t.Errorf("listed without images:\n%s", text)
		}
	})
}

// The image in each namespace keeps its own reference to the one blob.
func TestCompiledCodeInTwoNamespaces(t *testing.T) {
	const ref = "example.com/keep/namespaces:latest"
	guest := ownGuest(t, "hello-c")
	tar := testguest.Image(t, ref, testguest.ImageOpts{Files: map[string]string{"/app.wasm": guest}, Entrypoint: []string{"/app.wasm"}})
	nodes.EachVersion(t, func(t *testing.T, node *testnode.Node) {
		node.Import(t, tar)
		node.NoLeaks(t)
		cache, file := newCache(t)
		other := node.Namespace + "-other"
		elsewhere := func(args ...string) {
			t.Helper()
			if got := node.Ctr(t, append([]string{"--namespace", other}, args...)...); got.Code != 0 {
				t.Fatalf("%+v", got)
			}
		}
		elsewhere("images", "import", tar)
		// The default cgroup of the other namespace would be left behind.
		run := []string{"run", "--rm", "--runtime", runtime, "--runtime-config-path", file, "--cgroup", "/" + node.Namespace + "/hello", ref, "hello"}
		here := func() {
			t.Helper()
			if got := node.Ctr(t, run...); got.Code != 0 {
				t.Fatalf("%+v", got)
			}
		}
		if !untilKept(t, cache, here, func() bool { return isKept(t, cache) }) {
			t.Fatalf("the cache keeps %q to itself", ownCode(t, cache))
		}
		blob := blobFile(node, compiledBlobs(t, node, guest)[0])
		if !untilKept(t, cache, func() { elsewhere(run...) }, func() bool {
			return strings.Contains(shimVerb(t, "cache", "ls", "--config", file), other+"/"+ref)
		}) {
			t.Fatalf("the other namespace's image does not keep the module:\n%s", shimVerb(t, "cache", "ls", "--config", file))
		}
		node.Ctr(t, "images", "remove", "--sync", ref)
		if _, err := os.Stat(blob); err != nil {
			t.Errorf("the other namespace's module is gone: %v", err)
		}
		if text := shimVerb(t, "cache", "ls", "--config", file); !strings.Contains(text, "\n1 modules") {
			t.Errorf("listed\n%s", text)
		}
		elsewhere("images", "remove", "--sync", ref)
		if _, err := os.Stat(blob); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("the module is still there without its images: %v", err)
		}
	})
}

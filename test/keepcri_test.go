package test

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/pkg/namespaces"

	"github.com/wasmshim/containerd-shim-wasm/internal/testguest"
	"github.com/wasmshim/containerd-shim-wasm/internal/testnode"
)

// podBlob returns the digest of the blob that an image of CRI's refers to as a module's compiled code, or "" if
// there is none.
func podBlob(t *testing.T, node *testnode.Node, guest string) (found string) {
	t.Helper()
	code, err := os.ReadFile(guest)
	if err != nil {
		t.Fatal(err)
	}
	name := fmt.Sprintf(".%x", sha256.Sum256(code))[:33]
	ctx := namespaces.WithNamespace(context.Background(), "k8s.io")
	err = node.Client(t).ContentStore().Walk(ctx, func(info content.Info) error {
		for label, value := range info.Labels {
			if strings.Contains(label, "gc.ref.content.wasm-shim.") && strings.HasSuffix(label, name) {
				found = strings.TrimPrefix(value, "sha256:")
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// The same with CRI: when the kubelet's image garbage collection removes an image, the compiled code is removed
// too.
func TestCompiledCodeGoesWithAPodsImage(t *testing.T) {
	const ref = "example.com/keep/pod:latest"
	guest := ownGuest(t, "probe")
	tar := testguest.Image(t, ref, testguest.ImageOpts{Files: map[string]string{"/app.wasm": guest}, Entrypoint: []string{"/app.wasm"}})
	program := way{image: ref, programs: map[string][]string{"exit": {"/app.wasm", "exit", "0"}}}
	eachVersionWithPods(t, func(t *testing.T, node *testnode.Node) {
		pods := podsOf(t, node)
		if err := pods.Import(t.Context(), tar, ref); err != nil {
			t.Fatal(err)
		}
		p := runPod(t, node, ourHandler, nil)
		m := p.add(program, "exit", nil)
		m.start()
		m.expectExit(0)
		// While the keeper runs, its lease keeps the blob, too.
		if !eventually(func() bool { return podBlob(t, node, guest) != "" && !isNamed(t, m.id) }) {
			t.Fatal("the image does not keep the module")
		}
		blob := filepath.Join(node.Root(), "io.containerd.content.v1.content", "blobs", "sha256", podBlob(t, node, guest))
		if _, err := os.Stat(blob); err != nil {
			t.Fatal(err)
		}
		m.remove()
		if err := pods.Remove(t.Context(), ref); err != nil {
			t.Fatal(err)
		}
		if !eventually(func() bool { _, err := os.Stat(blob); return errors.Is(err, os.ErrNotExist) }) {
			t.Error("the module is still there without its image")
		}
	})
}

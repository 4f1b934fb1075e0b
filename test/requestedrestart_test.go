package test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/pkg/oci"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/wasmshim/containerd-shim-wasm/internal/testnode"
)

// What is read and written by a container goes on while containerd is away, and ends as ever after it is back.
func TestRequestedArtifactsOutliveContainerd(t *testing.T) {
	eachVersionWithTasks(t, func(t *testing.T, node *testnode.Node) {
		importArgoImages(t, node)
		p := newRequestingPod(t, node, map[string]string{"bucket/large": strings.Repeat(lazyData, 10), "results/old": "old"})
		shared := t.TempDir()
		volume := oci.WithMounts([]specs.Mount{{Destination: "/shared", Type: "bind", Source: shared, Options: []string{"rbind", "rw"}}})
		k, err := p.create(p.config(), map[string]string{"in": "s3://bucket/large -> /in/x", "result": "/out/x -> s3://results/x"},
			[]string{"part", "/in/x", "0", "16", ",", "write", "/shared/begun", "", ",", "await", "/shared/go", ",", "copy", "/in/x", "/out/x"}, volume)
		if err != nil {
			t.Fatal(err)
		}
		k.start()
		waitFor(t, func() bool { _, err := os.Stat(filepath.Join(shared, "begun")); return err == nil }, "the container")
		if err := node.Kill9(); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(shared, "go"), nil, 0o644); err != nil {
			t.Fatal(err)
		}
		waitFor(t, func() bool { return p.stored("results/x") != "" }, "the output, while containerd is away")
		if err := node.Restart(t.Context()); err != nil {
			t.Fatal(err)
		}
		k.reload()
		p.leader.reload()
		k.expectCode(0)
		k.remove()
		if got := p.stored("results/x"); got != strings.Repeat(lazyData, 10) {
			t.Errorf("the output has %d bytes", len(got))
		}
		p.expectNoUploads("results")
		p.expectNothingLeft()
	})
}

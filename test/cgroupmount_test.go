package test

import (
	"testing"

	"github.com/containerd/containerd/v2/pkg/oci"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/wasmshim/containerd-shim-wasm/internal/testnode"
)

// A container finds the same below /sys/fs/cgroup as under runc. On cgroup v1 that is a folder for each
// hierarchy, also where v2 is mounted beside them. On v2 runc needs a cgroup namespace for that; without one it
// shows the host's cgroups.
func TestCgroupMountIsRuncs(t *testing.T) {
	eachVersionWithTasks(t, func(t *testing.T, node *testnode.Node) {
		list := func(w way, args ...string) string {
			k := w.createArgs(t, node, args,
				oci.WithMounts([]specs.Mount{{Destination: "/sys/fs/cgroup", Type: "cgroup", Source: "cgroup", Options: []string{"ro"}}}),
				oci.WithLinuxNamespace(specs.LinuxNamespace{Type: specs.CgroupNamespace}))
			k.start()
			k.expectCode(0)
			// Delete returns when all output has been copied.
			if _, err := k.Delete(k.ctx); err != nil {
				t.Fatal(err)
			}
			return k.output.String()
		}
		want := list(asStock, "ls", "/sys/fs/cgroup")
		if got := list(asWasm, "/app.wasm", "ls", "/sys/fs/cgroup"); got != want || want == "" {
			t.Errorf("got %q, want %q", got, want)
		}
	})
}

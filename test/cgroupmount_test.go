package test

import (
	"testing"

	"github.com/wasmshim/containerd-shim-wasm/internal/testnode"
)

// A container finds the same below /sys/fs/cgroup as under runc: on cgroup v1 a folder for each
// hierarchy, also where v2 is mounted beside them.
func TestCgroupMountIsRuncs(t *testing.T) {
	eachVersionWithTasks(t, func(t *testing.T, node *testnode.Node) {
		list := func(w way, args ...string) testnode.Result {
			mount := []string{"run", "--rm", "--runtime", w.runtime, "--mount", "type=cgroup,src=cgroup,dst=/sys/fs/cgroup,options=ro", w.image, "cgroups-" + w.name}
			return node.Ctr(t, append(mount, args...)...)
		}
		want := list(asStock, "ls", "/sys/fs/cgroup")
		if want.Code != 0 || want.Stdout == "" {
			t.Fatalf("runc: %+v", want)
		}
		check(t, "cgroups", list(asWasm, "/app.wasm", "ls", "/sys/fs/cgroup"), want)
	})
}

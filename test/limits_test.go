package test

import (
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/pkg/oci"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/wasmshim/containerd-shim-wasm/internal/testnode"
)

const limitedMemory = 64 << 20

// A guest that asks for more memory than its limit gets an error, and decides itself how it ends. Its neighbour
// and both shims keep running.
func TestGrowingGuestIsRefusedMemory(t *testing.T) {
	eachVersionWithTasks(t, func(t *testing.T, node *testnode.Node) {
		neighbour := asWasm.run(t, node, "sleep", "sleeping")
		events := recordEvents(t, node)
		grown := asWasm.createArgs(t, node, []string{"/app.wasm", "grow"}, oci.WithMemoryLimit(limitedMemory))
		grown.start()
		grown.expectCode(3)
		grown.output.await(t, "grew ")
		grown.expectStatus(client.Stopped)
		neighbour.expectStatus(client.Running)
		if got := events.of(grown, ended); strings.Contains(got, "/tasks/oom") {
			t.Errorf("killed for memory:\n%s", got)
		}
	})
}

// The kernel limits memory that the engine does not allocate, such as files on a tmpfs.
func TestOutOfMemoryKill(t *testing.T) {
	eachVersionWithTasks(t, func(t *testing.T, node *testnode.Node) {
		neighbour := asWasm.run(t, node, "sleep", "sleeping")
		events := recordEvents(t, node)
		filler := asWasm.create(t, node, "fill", oci.WithMemoryLimit(limitedMemory), fillMount)
		filler.start()
		filler.expectCode(137)
		filler.expectStatus(client.Stopped)
		neighbour.expectStatus(client.Running)
		want := "/tasks/create\n/tasks/start\n/tasks/oom\n/tasks/exit TASK 137\n"
		if got := events.of(filler, ended); got != want {
			t.Errorf("got events\n%swant\n%s", got, want)
		}
	})
}

func TestCPUQuota(t *testing.T) {
	eachVersionWithTasks(t, func(t *testing.T, node *testnode.Node) {
		// The quota is so small that the guest exceeds it in some period even on a busy machine.
		looping := asWasm.run(t, node, "loop", "looping", oci.WithCPUCFS(5_000, 100_000))
		got := looping.limit("cpu", "cpu.cfs_quota_us", "cpu.max") + " " + looping.limit("cpu", "cpu.cfs_period_us", "cpu.max")
		if got != "5000 100000" && got != "5000 100000 5000 100000" {
			t.Errorf("quota and period are %s", got)
		}
		before := looping.usage().Throttled
		waitFor(t, func() bool { return looping.usage().Throttled > before }, "the kernel to throttle the guest")
	})
}

func TestPidsLimit(t *testing.T) {
	eachVersionWithTasks(t, func(t *testing.T, node *testnode.Node) {
		sleeping := asWasm.run(t, node, "sleep", "sleeping", oci.WithPidsLimit(77))
		if got := sleeping.limit("pids", "pids.max", "pids.max"); got != "77" {
			t.Errorf("pids limit is %s", got)
		}
	})
}

func TestMetrics(t *testing.T) {
	eachVersionWithTasks(t, func(t *testing.T, node *testnode.Node) {
		looping := asWasm.run(t, node, "loop", "looping", oci.WithMemoryLimit(limitedMemory), oci.WithPidsLimit(77))
		waitFor(t, func() bool { return looping.usage().CPU > 0 }, "CPU time")
		if got := looping.usage(); got.Memory == 0 || got.Memory > limitedMemory || got.Pids == 0 || got.Pids > 77 {
			t.Errorf("got %+v", got)
		}
		table := metricsTable(looping)
		for _, names := range [][2]string{
			{"memory.usage_in_bytes", "memory.usage"}, {"cpuacct.usage", "cpu.usage_usec"}, {"pids.current", "pids.current"},
		} {
			if value := table[names[0]] + table[names[1]]; value == "" || value == "0" {
				t.Errorf("%s is %q in %v", names[0], value, table)
			}
		}
		if limit := table["memory.limit_in_bytes"] + table["memory.usage_limit"]; limit != "67108864" {
			t.Errorf("memory limit is %q in %v", limit, table)
		}
		if table["pids.limit"] != "77" {
			t.Errorf("pids limit is %q in %v", table["pids.limit"], table)
		}
	})
}

// metricsTable returns the rows that "ctr task metrics" prints.
func metricsTable(k *task) map[string]string {
	table := map[string]string{}
	for line := range strings.Lines(k.ctr("metrics", k.container.ID())) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), " "); ok {
			table[name] = strings.TrimSpace(value)
		}
	}
	return table
}

func TestUpdate(t *testing.T) {
	eachVersionWithTasks(t, func(t *testing.T, node *testnode.Node) {
		sleeping := asWasm.run(t, node, "sleep", "sleeping", oci.WithMemoryLimit(limitedMemory), oci.WithCPUCFS(20_000, 100_000))
		memory, quota, pids := int64(96<<20), int64(30_000), int64(55)
		err := sleeping.Update(sleeping.ctx, client.WithResources(&specs.LinuxResources{
			Memory: &specs.LinuxMemory{Limit: &memory},
			CPU:    &specs.LinuxCPU{Quota: &quota},
			Pids:   &specs.LinuxPids{Limit: &pids},
		}))
		if err != nil {
			t.Fatal(err)
		}
		if got := sleeping.limit("memory", "memory.limit_in_bytes", "memory.max"); got != "100663296" {
			t.Errorf("memory limit is %s", got)
		}
		if got, _, _ := strings.Cut(sleeping.limit("cpu", "cpu.cfs_quota_us", "cpu.max"), " "); got != "30000" {
			t.Errorf("CPU quota is %s", got)
		}
		if got := sleeping.limit("pids", "pids.max", "pids.max"); got != "55" {
			t.Errorf("pids limit is %s", got)
		}
	})
}

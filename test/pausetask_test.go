package test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/containerd/v2/pkg/cio"
	"github.com/containerd/containerd/v2/pkg/oci"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/wasmshim/containerd-shim-wasm/internal/testguest"
	"github.com/wasmshim/containerd-shim-wasm/internal/testnode"
)

// asPause makes a container the pause container of a new pod.
func asPause(ctx context.Context, c oci.Client, container *containers.Container, spec *oci.Spec) error {
	return oci.WithAnnotations(map[string]string{
		sandboxID: container.ID, "io.kubernetes.cri.container-type": "sandbox",
	})(ctx, c, container, spec)
}

// stocks returns the process ids of a task's stock shims.
func (k *task) stocks() []uint32 {
	k.t.Helper()
	return shimsOf(k.t, k.node, "containerd-shim-runc-v2", k.container.ID())
}

// A pause container's program does not run before Start, and then runs as under runc.
func TestPauseWaitsForStart(t *testing.T) {
	eachVersionWithTasks(t, func(t *testing.T, node *testnode.Node) {
		args := []string{"sh", "-c", "echo $0 $1; pwd; env | sort; id; exit 42", "name", "argument"}
		home := oci.WithEnv([]string{"HOME=/home"}) // else runc looks HOME up
		want := asStock.createArgs(t, node, args, home)
		want.start()
		want.expectCode(42)

		k := asNative.createArgs(t, node, args, home, asPause)
		k.expectStatus(client.Created)
		if program, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", k.Pid())); err != nil || strings.Contains(program, "busybox") {
			t.Errorf("before its start it runs %q, %v", program, err)
		}
		if inside := k.standing([]string{"NSpid"})["NSpid"]; inside != fmt.Sprintf("%d 1", k.Pid()) {
			t.Errorf("before its start it is %q in its namespaces", inside)
		}
		if pids, err := k.Pids(k.ctx); err != nil || len(pids) != 1 || pids[0].Pid != k.Pid() {
			t.Errorf("its processes are %v, %v, want %d", pids, err, k.Pid())
		}
		pid := k.Pid()
		k.start()
		k.expectCode(42)
		if k.Pid() != pid || len(k.stocks()) > 0 {
			t.Errorf("process %d is now %d; stock shims %v", pid, k.Pid(), k.stocks())
		}
		for _, x := range []*task{want, k} {
			if _, err := x.Delete(x.ctx); err != nil {
				t.Error(err)
			}
		}
		if got, want := k.output.String(), want.output.String(); got != want || !strings.HasPrefix(got, "name argument\n/\n") {
			t.Errorf("it printed %q, under runc %q", got, want)
		}
	})
}

// A pause container publishes the same events as other tasks, except those of execs.
func TestPauseTellsTheSameStories(t *testing.T) {
	eachVersionWithTasks(t, func(t *testing.T, node *testnode.Node) {
		for _, name := range []string{"by itself", "never started", "out of memory"} {
			t.Run(name, func(t *testing.T) {
				events := recordEvents(t, node)
				k := scenarios[name].play(t, node, asNative, asPause)
				if stocks := k.stocks(); len(stocks) > 0 {
					t.Errorf("stock shims %v", stocks)
				}
				if _, err := k.Delete(k.ctx); err != nil {
					t.Fatal(err)
				}
				if got := events.of(k, deleted); got != scenarios[name].want {
					t.Errorf("it tells\n%s\nwant\n%s", got, scenarios[name].want)
				}
			})
		}
	})
}

// A pause container can be paused and signalled, reports metrics, and accepts new limits. An exec is refused
// with the reason.
func TestPauseIsATask(t *testing.T) {
	eachVersionWithTasks(t, func(t *testing.T, node *testnode.Node) {
		k := asNative.run(t, node, "loop", "looping", asPause, oci.WithMemoryLimit(limitedMemory))
		if err := k.Pause(k.ctx); err != nil {
			t.Fatal(err)
		}
		k.expectStatus(client.Paused)
		if err := k.Resume(k.ctx); err != nil {
			t.Fatal(err)
		}
		before := k.usage().CPU
		waitFor(t, func() bool { return k.usage().CPU > before }, "the resumed process to burn CPU")
		limit := int64(2 * limitedMemory)
		if err := k.Update(k.ctx, client.WithResources(&specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: &limit}})); err != nil {
			t.Error(err)
		}
		if got := k.limit("memory", "memory.limit_in_bytes", "memory.max"); got != fmt.Sprint(limit) {
			t.Errorf("the memory limit is %s, want %d", got, limit)
		}
		spec, err := k.container.Spec(k.ctx)
		if err != nil {
			t.Fatal(err)
		}
		_, err = k.Exec(k.ctx, "exec", spec.Process, cio.NullIO)
		if err == nil || !strings.Contains(err.Error(), "pause container runs nothing beside its own program") {
			t.Errorf("exec: %v", err)
		}
		kill(t, k, syscall.SIGTERM)
		k.expectCode(143)
	})
}

// An error that occurs only when the program is executed is returned by Start.
func TestPauseThatCannotBeExecuted(t *testing.T) {
	eachVersionWithTasks(t, func(t *testing.T, node *testnode.Node) {
		program, err := os.ReadFile(testguest.Build(t, "hello-native"))
		if err != nil {
			t.Fatal(err)
		}
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "hello"), program, 0o700); err != nil {
			t.Fatal(err)
		}
		k := asNative.createArgs(t, node, []string{"/roots/hello"}, asPause, boundFolder(dir, "/roots"), func(_ context.Context, _ oci.Client, _ *containers.Container, s *specs.Spec) error {
			s.Process.User = specs.User{UID: 1000, GID: 1000}
			return nil
		})
		if err := k.Start(k.ctx); err == nil || !strings.Contains(err.Error(), "execute /roots/hello: permission denied") {
			t.Errorf("it was started with %v", err)
		}
		k.expectCode(127)
	})
}

// boundFolder binds a folder of the host into a container.
func boundFolder(dir, at string) oci.SpecOpts {
	return oci.WithMounts([]specs.Mount{{Destination: at, Type: "bind", Source: dir, Options: []string{"rbind", "ro"}}})
}

// The stock shim runs every pause container with an unexpected setting.
func TestOddPauseGoesToTheStockShim(t *testing.T) {
	eachVersionWithTasks(t, func(t *testing.T, node *testnode.Node) {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "script"), []byte("#!/bin/sh\necho sleeping; exec sleep 1000\n"), 0o755); err != nil {
			t.Fatal(err)
		}
		for name, odd := range map[string]struct {
			args   []string
			change oci.SpecOpts
		}{
			"script":         {[]string{"/scripts/script"}, boundFolder(dir, "/scripts")},
			"directory":      {asNative.programs["sleep"], oci.WithProcessCwd("/tmp")},
			"time namespace": {asNative.programs["sleep"], oci.WithLinuxNamespace(specs.LinuxNamespace{Type: specs.TimeNamespace})},
			"cgroup mount": {asNative.programs["sleep"], oci.WithMounts([]specs.Mount{
				{Destination: "/sys/fs/cgroup", Type: "cgroup", Source: "cgroup", Options: []string{"ro"}},
			})},
		} {
			t.Run(name, func(t *testing.T) {
				k := asNative.createArgs(t, node, odd.args, asPause, odd.change)
				k.start()
				k.output.await(t, "sleeping")
				if len(k.stocks()) != 1 {
					t.Errorf("its stock shims are %v", k.stocks())
				}
				wasm := asWasm.run(t, node, "sleep", "sleeping", inPod(k.container.ID()))
				wasm.stop()
				k.stop()
			})
		}
	})
}

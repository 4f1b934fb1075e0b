package test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/containerd/containerd/api/services/tasks/v1"
	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/pkg/cio"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/wasmshim/containerd-shim-wasm/internal/testnode"
)

// If a shim is killed, its tasks end, and containerd has the rest cleaned up: the process of the task, its
// execs and, for a native task, the stock shim.
func TestKilledShimIsCleanedUp(t *testing.T) {
	eachVersionWithTasks(t, func(t *testing.T, node *testnode.Node) {
		for _, w := range []way{asWasm, asNative} {
			t.Run(w.name, func(t *testing.T) {
				node.NoLeaks(t)
				events := recordEvents(t, node)
				k := w.run(t, node, "sleep", "sleeping")
				e := k.exec(w.programs["loop"], nil)
				e.output.await(t, "looping")
				shim := k.connect().ShimPid
				left := []uint32{shim, k.Pid(), e.Pid()}
				left = append(left, shimsOf(t, node, "containerd-shim-runc-v2", k.container.ID())...)
				if err := syscall.Kill(int(shim), syscall.SIGKILL); err != nil {
					t.Fatal(err)
				}
				events.of(k, ended+"137")
				events.of(k, deleted+" 137")
				k.awaitRemoval()
				for _, pid := range left {
					waitFor(t, func() bool { return !alive(pid) }, "the end of process %d", pid)
				}
			})
		}
	})
}

// The same for a pod with both kinds of containers in one shim.
func TestKilledShimOfAPodIsCleanedUp(t *testing.T) {
	eachVersionWithTasks(t, func(t *testing.T, node *testnode.Node) {
		events := recordEvents(t, node)
		wasm := asWasm.run(t, node, "sleep", "sleeping", leadingPod)
		native := asNative.run(t, node, "sleep", "sleeping", inPod(wasm.container.ID()))
		shim := wasm.connect().ShimPid
		if err := syscall.Kill(int(shim), syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		for _, k := range []*task{wasm, native} {
			events.of(k, ended+"137")
			events.of(k, deleted+" 137")
			k.awaitRemoval()
		}
		for _, pid := range []uint32{shim, wasm.Pid(), native.Pid()} {
			waitFor(t, func() bool { return !alive(pid) }, "the end of process %d", pid)
		}
	})
}

// awaitRemoval returns when containerd no longer has the task. It calls Delete, because the task's state is
// already "not found" before containerd has removed the task.
func (k *task) awaitRemoval() {
	k.t.Helper()
	waitFor(k.t, func() bool {
		_, err := k.client.TaskService().Delete(k.ctx, &tasks.DeleteTaskRequest{ContainerID: k.container.ID()})
		return status.Code(err) == codes.NotFound
	}, "the removal of %s", k.container.ID())
}

// shimsOf returns the processes of the named program that were started for a container of the node.
func shimsOf(t testing.TB, node *testnode.Node, program, id string) []uint32 {
	t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	var found []uint32
	for _, file := range files {
		line, err := os.ReadFile(file)
		if err != nil {
			continue // the process has ended meanwhile
		}
		args := strings.Split(string(line), "\x00")
		if filepath.Base(args[0]) != program || !slices.Contains(args, id) || !slices.Contains(args, node.Namespace) {
			continue
		}
		pid, err := strconv.ParseUint(filepath.Base(filepath.Dir(file)), 10, 32)
		if err != nil {
			t.Fatal(err)
		}
		found = append(found, uint32(pid))
	}
	return found
}

// Tasks outlive containerd. After a restart containerd finds the running tasks, and the exit codes of the
// others.
func TestContainerdRestart(t *testing.T) {
	for _, version := range testnode.Versions() {
		t.Run("containerd-"+version, func(t *testing.T) {
			node := testnode.New(t, testnode.Options{Version: version})
			importTaskImages(t, node)
			node.NoLeaks(t)
			for _, w := range []way{asWasm, asNative} {
				testRestart(t, node, w)
			}
		})
	}
}

func testRestart(t *testing.T, node *testnode.Node, w way) {
	running := w.run(t, node, "loop", "looping")
	paused := w.run(t, node, "loop", "looping")
	paused.ctr("pause", paused.container.ID())
	// Only a Wasm task: for a native task that ends meanwhile, the stock shim decides what containerd finds.
	meanwhile := asWasm.run(t, node, "sleep", "sleeping")

	if err := node.Kill9(); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(int(meanwhile.Pid()), syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	waitFor(t, func() bool { return !alive(meanwhile.Pid()) }, "the end of process %d", meanwhile.Pid())
	if err := node.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}

	pid := running.Pid()
	running.reload()
	if running.Pid() != pid || !alive(pid) {
		t.Errorf("%s: process %d is now %d", w.name, pid, running.Pid())
	}
	running.expectStatus(client.Running)
	running.execLoop()
	kill(t, running, syscall.SIGTERM)
	running.expectCode(143)

	paused.reload()
	paused.expectStatus(client.Paused)
	paused.ctr("resume", paused.container.ID())
	kill(t, paused, syscall.SIGTERM)
	paused.expectCode(143)

	meanwhile.reload()
	meanwhile.expectCode(143)
	meanwhile.expectStatus(client.Stopped)
}

// reload loads the task again by its name, as a new client does.
func (k *task) reload() {
	k.t.Helper()
	container, err := k.client.LoadContainer(k.ctx, k.container.ID())
	if err != nil {
		k.t.Fatal(err)
	}
	k.container = container
	k.Task, err = container.Task(k.ctx, cio.NewAttach(cio.WithStreams(nil, k.output, k.output)))
	if err != nil {
		k.t.Fatal(err)
	}
	if k.exited, err = k.Wait(k.ctx); err != nil {
		k.t.Fatal(err)
	}
}

func TestFiftyAtOnce(t *testing.T) {
	eachVersionWithTasks(t, func(t *testing.T, node *testnode.Node) {
		c := node.Client(t)
		ctx := namespaces.WithNamespace(t.Context(), node.Namespace)
		if _, err := c.Version(ctx); err != nil {
			t.Fatal(err)
		}
		var all sync.WaitGroup
		for range 50 {
			all.Go(func() {
				k, err := asWasm.tryCreate(t, node, c, asWasm.programs["hello"])
				if err == nil {
					err = k.Start(k.ctx)
				}
				if err != nil {
					t.Error(err)
					return
				}
				exit := <-k.exited
				if exit.Error() != nil || exit.ExitCode() != 0 {
					t.Error(fmt.Errorf("exit code %d: %w", exit.ExitCode(), exit.Error()))
				}
				if _, err := k.Delete(k.ctx); err != nil {
					t.Error(err)
				}
				if got := k.output.String(); got != "hello from C\n" {
					t.Errorf("it printed %q", got)
				}
			})
		}
		all.Wait()
	})
}

package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/pkg/cio"
	"github.com/containerd/containerd/v2/pkg/oci"

	"github.com/wasmshim/containerd-shim-wasm/internal/testguest"
	"github.com/wasmshim/containerd-shim-wasm/internal/testnode"
)

const (
	wasmRuntime = "io.containerd.wasm.v1"
	runcRuntime = "io.containerd.runc.v2"
)

// phases are the parts of a container's life, in their order; total is all of them.
var phases = []string{"new container, snapshot", "create task", "start", "exit", "delete task", "delete container", total}

const total = "total"

// contender is a runtime with the image it runs.
type contender struct {
	name    string
	runtime string
	client  *client.Client
	image   client.Image
}

// contenders returns ours and runc, warmed up: the module is compiled, the files are in memory.
func contenders(ctx context.Context, node *testnode.Node, c *client.Client) ([]contender, error) {
	wasm, err := testguest.WasmImage("hello-c")
	if err != nil {
		return nil, err
	}
	hello, err := testguest.File("hello-native")
	if err != nil {
		return nil, err
	}
	native := testguest.ImageOpts{Files: map[string]string{"/hello": hello}, Entrypoint: []string{"/hello"}}
	ours, err := newContender(ctx, node, c, "wasm", wasmRuntime, wasm)
	if err != nil {
		return nil, err
	}
	theirs, err := newContender(ctx, node, c, "runc", runcRuntime, native)
	return []contender{ours, theirs}, err
}

func newContender(ctx context.Context, node *testnode.Node, c *client.Client, name, runtime string, opts testguest.ImageOpts) (contender, error) {
	image, err := importImage(ctx, node, c, name, opts)
	if err != nil {
		return contender{}, err
	}
	new := contender{name: name, runtime: runtime, client: c, image: image}
	for i := range 3 {
		if err := new.cycle(ctx, fmt.Sprintf("warm-%s-%d", name, i), samples{}); err != nil {
			return contender{}, err
		}
	}
	return new, nil
}

func importImage(ctx context.Context, node *testnode.Node, c *client.Client, name string, opts testguest.ImageOpts) (client.Image, error) {
	tar := filepath.Join(node.Dir, name+".tar")
	ref := "example.com/bench/" + name + ":latest"
	if err := testguest.WriteImage(tar, ref, opts); err != nil {
		return nil, err
	}
	defer os.Remove(tar)
	if err := node.ImportImage(ctx, tar); err != nil {
		return nil, err
	}
	return c.GetImage(ctx, ref)
}

// cycle takes one container from its creation to its removal and records how long each phase
// took.
func (c contender) cycle(ctx context.Context, id string, times samples) error {
	watch := stopwatch{times: times, begun: time.Now(), last: time.Now()}
	container, err := c.newContainer(ctx, id)
	if err != nil {
		return fmt.Errorf("%s: %w", c.runtime, err)
	}
	watch.lap("new container, snapshot")
	err = runTask(ctx, container, &watch)
	if err != nil {
		_ = container.Delete(ctx, client.WithSnapshotCleanup) // the first error is the one to report
		return fmt.Errorf("%s: %w", c.runtime, err)
	}
	if err := container.Delete(ctx, client.WithSnapshotCleanup); err != nil {
		return fmt.Errorf("%s: %w", c.runtime, err)
	}
	watch.lap("delete container")
	watch.end()
	return nil
}

func (c contender) newContainer(ctx context.Context, id string, opts ...oci.SpecOpts) (client.Container, error) {
	opts = append([]oci.SpecOpts{oci.WithImageConfig(c.image)}, opts...)
	return c.client.NewContainer(ctx, id, client.WithNewSnapshot(id, c.image),
		client.WithRuntime(c.runtime, nil), client.WithNewSpec(opts...))
}

func runTask(ctx context.Context, container client.Container, watch *stopwatch) error {
	task, err := container.NewTask(ctx, cio.NullIO)
	if err != nil {
		return err
	}
	watch.lap("create task")
	exited, err := task.Wait(ctx)
	if err == nil {
		err = task.Start(ctx)
	}
	if err != nil {
		_, _ = task.Delete(ctx, client.WithProcessKill) // the first error is the one to report
		return err
	}
	watch.lap("start")
	status := <-exited
	if code, _, err := status.Result(); err != nil || code != 0 {
		_, _ = task.Delete(ctx, client.WithProcessKill)
		return fmt.Errorf("the container ended with code %d: %w", code, err)
	}
	watch.lap("exit")
	if _, err := task.Delete(ctx); err != nil {
		return err
	}
	watch.lap("delete task")
	return nil
}

// stopwatch adds the time since its last lap to the phase that has just ended.
type stopwatch struct {
	times       samples
	begun, last time.Time
}

func (w *stopwatch) lap(phase string) {
	now := time.Now()
	w.times.add(phase, now.Sub(w.last))
	w.last = now
}

func (w *stopwatch) end() { w.times.add(total, w.last.Sub(w.begun)) }

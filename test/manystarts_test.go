package test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	runtimeoptions "github.com/containerd/containerd/api/types/runtimeoptions/v1"
	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/pkg/cio"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/containerd/v2/pkg/oci"

	"github.com/wasmshim/containerd-shim-wasm/internal/testguest"
	"github.com/wasmshim/containerd-shim-wasm/internal/testnode"
)

const manyStarts = 200

// bigOwnGuest writes a module that takes long to compile and that has not been compiled before.
func bigOwnGuest(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "big.wasm")
	section := append([]byte{4, 't', 'e', 's', 't'}, t.Name()...)
	code := append(testguest.Big(2<<20), append([]byte{0, byte(len(section))}, section...)...)
	if err := os.WriteFile(path, code, 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

// Many containers of a new module start at once, each with its own daemon. One daemon compiles the module, and
// all containers run.
func TestManyFirstStartsCompileOnce(t *testing.T) {
	const ref = "example.com/many/big:latest"
	tar := testguest.Image(t, ref, testguest.ImageOpts{Files: map[string]string{"/app.wasm": bigOwnGuest(t)}, Entrypoint: []string{"/app.wasm"}})
	node := nodes.Get(t, testnode.DefaultVersion)
	node.Import(t, tar)
	node.NoLeaks(t)
	dir, file := newCache(t)
	log, err := os.Stat(node.Log())
	if err != nil {
		t.Fatal(err)
	}
	c := node.Client(t)
	ctx := namespaces.WithNamespace(t.Context(), node.Namespace)
	image, err := c.GetImage(ctx, ref)
	if err != nil {
		t.Fatal(err)
	}
	containers := make([]client.Container, manyStarts)
	for i := range containers {
		id := fmt.Sprintf("many-%d", i)
		containers[i], err = c.NewContainer(ctx, id, client.WithImage(image), client.WithNewSnapshot(id, image),
			client.WithNewSpec(oci.WithImageConfig(image)), client.WithRuntime(runtime, &runtimeoptions.Options{ConfigPath: file}))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := containers[i].Delete(context.WithoutCancel(ctx), client.WithSnapshotCleanup); err != nil {
				t.Error(err)
			}
		})
	}
	failures := make([]error, manyStarts)
	var all sync.WaitGroup
	for i := range containers {
		all.Go(func() { failures[i] = runToEnd(ctx, containers[i]) })
	}
	all.Wait()
	if err := errors.Join(failures...); err != nil {
		t.Fatal(err)
	}
	if !isIdle(t, dir) {
		t.Error("the cache is still at work")
	}
	compiledFile(t, dir)
	compiled := func() (times int) {
		for line := range strings.Lines(node.LogTail(log.Size(), 1<<20)) {
			if strings.Contains(line, "msg=compiled") && strings.Contains(line, "namespace="+node.Namespace) {
				times++
			}
		}
		return times
	}
	// containerd copies the shims' logs to its own log with some delay.
	if !eventually(func() bool { return compiled() > 0 }) || compiled() != 1 {
		t.Errorf("compiled %d times", compiled())
	}
}

// runToEnd runs a container's task and expects exit code 0.
func runToEnd(ctx context.Context, container client.Container) error {
	task, err := container.NewTask(ctx, cio.NullIO)
	if err != nil {
		return err
	}
	exited, err := task.Wait(ctx)
	if err == nil {
		err = task.Start(ctx)
	}
	if err == nil {
		if status := <-exited; status.ExitCode() != 0 || status.Error() != nil {
			err = fmt.Errorf("%s ended with %d, %w", container.ID(), status.ExitCode(), status.Error())
		}
	}
	_, deleteErr := task.Delete(context.WithoutCancel(ctx), client.WithProcessKill)
	return errors.Join(err, deleteErr)
}

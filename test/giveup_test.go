package test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/pkg/cio"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/containerd/v2/pkg/oci"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/wasmshim/containerd-shim-wasm/internal/testguest"
	"github.com/wasmshim/containerd-shim-wasm/internal/testnode"
)

// giveUp kills ctr while it creates a container, and waits for the end of the container's shim.
func giveUp(t *testing.T, node *testnode.Node, id string, isCreating func() bool, args ...string) {
	t.Helper()
	ctr := node.CtrCommand(t.Context(), append([]string{"run", "--runtime", runtime}, args...)...)
	if err := ctr.Start(); err != nil {
		t.Fatal(err)
	}
	waitFor(t, isCreating, "the creation of %s", id)
	if err := ctr.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = ctr.Wait()
	waitFor(t, func() bool { return len(shimsOf(t, node, shimName, id)) == 0 }, "the end of the shim of %s", id)
	node.Ctr(t, "containers", "delete", id)
}

// shimName is the process name of our shim.
const shimName = "containerd-shim-wasm-v1"

// A shim ends by itself if the client gives up the creation of its only container. No second request to end it
// comes.
func TestCreationThatIsGivenUp(t *testing.T) {
	const ref = "example.com/giveup/big:latest"
	big, err := testguest.Keep("big.wasm", testguest.Big(8<<20))
	if err != nil {
		t.Fatal(err)
	}
	image := testguest.Image(t, ref, testguest.ImageOpts{Files: map[string]string{"/app.wasm": big}, Entrypoint: []string{"/app.wasm"}})
	eachVersionWithTasks(t, func(t *testing.T, node *testnode.Node) {
		node.Import(t, image)
		t.Run("compiling", func(t *testing.T) {
			node.NoLeaks(t)
			cache, file := newCache(t)
			giveUp(t, node, "compiling", func() bool { return compilingShim(t, node) != 0 }, "--runtime-config-path", file, ref, "compiling")
			noPreparer(t)
			emptyCache(t, cache)
		})
		t.Run("logger", func(t *testing.T) {
			node.NoLeaks(t)
			dir := t.TempDir()
			logger, started := filepath.Join(dir, "logger"), filepath.Join(dir, "started")
			if err := os.WriteFile(logger, []byte("#!/bin/sh\ntouch "+started+"\nexec sleep 1000\n"), 0o755); err != nil {
				t.Fatal(err)
			}
			isCreating := func() bool { _, err := os.Stat(started); return err == nil }
			giveUp(t, node, "logger", isCreating, "--log-uri", "binary://"+logger, tasksWasmImage, "logger", "/hello.wasm")
		})
	})
}

// Names that an image chooses cannot make an error too long to be delivered, or unreadable.
func TestLongNamesInErrors(t *testing.T) {
	const ref = "example.com/giveup/names:latest"
	var names []string
	for i := range 19 {
		names = append(names, string(rune('a'+i))+strings.Repeat("\x01", 60<<10))
	}
	module, err := testguest.Keep("names.wasm", testguest.Importing("env", names...))
	if err != nil {
		t.Fatal(err)
	}
	image := testguest.Image(t, ref, testguest.ImageOpts{Files: map[string]string{"/app.wasm": module}, Entrypoint: []string{"/app.wasm"}})
	nodes.EachVersion(t, func(t *testing.T, node *testnode.Node) {
		node.Import(t, image)
		for name, command := range map[string][]string{
			"imports":        {"/app.wasm"},
			"entry point":    {"/" + strings.Repeat("x", 100<<10) + ".wasm"},
			"no function":    {"/app.wasm#" + strings.Repeat("x", 100<<10)},
			"not UTF-8":      {"/\xff\xfe.wasm"},
			"working folder": {"./" + strings.Repeat("y/", 30<<10) + "x.wasm"},
		} {
			t.Run(name, func(t *testing.T) {
				node.NoLeaks(t)
				_, file := newCache(t)
				got := node.Ctr(t, append([]string{"run", "--rm", "--runtime", runtime, "--runtime-config-path", file, ref, "names"}, command...)...)
				if got.Code == 0 || strings.Contains(got.Stderr, "ttrpc") || len(got.Stderr) > 16<<10 {
					t.Errorf("got %d bytes: %.300q", len(got.Stderr), got.Stderr)
				}
				if name == "imports" && !strings.Contains(got.Stderr, "imports what a Wasm container does not provide") {
					t.Errorf("the reason is not said: %.300q", got.Stderr)
				}
			})
		}
	})
}

// The poststop hooks of a container whose creation is given up during a hook are run once, though the daemon
// and the delete verb remove it at the same time.
func TestHooksOfACreationThatIsGivenUp(t *testing.T) {
	eachVersionWithTasks(t, func(t *testing.T, node *testnode.Node) {
		for _, name := range []string{"createContainer", "createRuntime"} {
			t.Run(name, func(t *testing.T) {
				node.NoLeaks(t)
				said, l := filepath.Join(t.TempDir(), "said"), newHookLog(t)
				hang := []specs.Hook{{Path: "/bin/sh", Args: []string{"sh", "-c", `echo $$ >"$1"; exec sleep 1000`, "hook", said}}}
				hooks := specs.Hooks{Poststop: []specs.Hook{l.hook("poststop")}}
				if name == "createContainer" {
					hooks.CreateContainer = hang
				} else {
					hooks.CreateRuntime = hang
				}
				id := giveUpTask(t, node, said, withHooks(hooks))
				waitFor(t, func() bool {
					_, err := os.Stat(node.Bundle(id))
					return os.IsNotExist(err) && len(shimsOf(t, node, shimName, id)) == 0
				}, "the end of the shim of %s, and of the delete verb", id)
				if got := l.names(t); !slices.Equal(got, []string{"poststop stopped"}) {
					t.Errorf("hooks were run: %q", got)
				}
			})
		}
	})
}

// giveUpTask cancels the creation of a task when the file exists, and returns the container's id.
func giveUpTask(t *testing.T, node *testnode.Node, file string, opts ...oci.SpecOpts) string {
	t.Helper()
	c, ctx := node.Client(t), namespaces.WithNamespace(context.Background(), node.Namespace)
	image, err := c.GetImage(ctx, tasksWasmImage)
	if err != nil {
		t.Fatal(err)
	}
	id := fmt.Sprintf("given-up-%d", lastTask.Add(1))
	container, err := c.NewContainer(ctx, id, client.WithImage(image), client.WithNewSnapshot(id, image),
		client.WithNewSpec(append([]oci.SpecOpts{oci.WithImageConfig(image), oci.WithProcessArgs("/hello.wasm")}, opts...)...),
		client.WithRuntime(runtime, nil))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := container.Delete(ctx, client.WithSnapshotCleanup); err != nil {
			t.Error(err)
		}
	})
	creating, giveUp := context.WithCancel(ctx)
	defer giveUp()
	created := make(chan error, 1)
	go func() {
		_, err := container.NewTask(creating, cio.NullIO)
		created <- err
	}()
	waitFor(t, func() bool { info, err := os.Stat(file); return err == nil && info.Size() > 0 }, "the hook")
	giveUp()
	if err := <-created; err == nil {
		t.Errorf("%s was created", id)
	}
	return id
}

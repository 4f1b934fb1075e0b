package test

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/pkg/cio"
	"github.com/containerd/containerd/v2/pkg/oci"

	"github.com/wasmshim/containerd-shim-wasm/internal/testguest"
	"github.com/wasmshim/containerd-shim-wasm/internal/testnode"
)

// An overlay mounted "volatile" cannot be mounted a second time. If a check of a native container's root file
// system mounts it, the stock shim can no longer mount it.
func TestVolatileRootfs(t *testing.T) {
	for _, version := range testnode.Versions() {
		t.Run("containerd-"+version, func(t *testing.T) {
			node := testnode.New(t, testnode.Options{Version: version, CRI: true, Config: "[plugins.\"io.containerd.snapshotter.v1.overlayfs\"]\n  mount_options = [\"volatile\"]\n"})
			importTaskImages(t, node)
			importPodImages(t, node)
			node.NoLeaks(t)
			for _, w := range []way{asStock, asNative, asWasm} {
				got := node.Ctr(t, append([]string{"run", "--rm", "--runtime", w.runtime, w.image, "volatile-" + w.name}, w.programs["exit"]...)...)
				check(t, w.name, got, testnode.Result{Code: 42})
			}
			// The command does not look like Wasm, and is on a volume without a mount point in the image.
			dir := t.TempDir()
			put(t, onHost(t, testguest.Build(t, "probe")), dir, "probe")
			flags := append([]string{"run", "--rm", "--runtime", runtime}, bind(dir, "/no/such/folder", "rbind:ro")...)
			got := node.Ctr(t, append(flags, tasksWasmImage, "volatile-volume", "/no/such/folder/probe", "ls", "/no/such")...)
			check(t, "on a volume", got, testnode.Result{Stdout: "folder\n"})
			// The pause container of a pod, launched by our shim and by the stock shim.
			runPod(t, node, ourHandler, nil).run(asNative, "sleep", "sleeping")
			k := asNative.createArgs(t, node, asNative.programs["sleep"], asPause, oci.WithProcessCwd("/tmp"))
			k.start()
			k.output.await(t, "sleeping")
		})
	}
}

// diskRootfs returns the mount of an ext4 image file that holds file at path, as the snapshotter "blockfile"
// returns mounts.
func diskRootfs(t *testing.T, file, path string) mount.Mount {
	t.Helper()
	tree := t.TempDir()
	for _, dir := range []string{"proc", "dev", "sys", "run"} {
		if err := os.Mkdir(filepath.Join(tree, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	program, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(tree, path), program, 0o755); err != nil {
		t.Fatal(err)
	}
	disk := filepath.Join(t.TempDir(), "disk")
	if text, err := exec.Command("mkfs.ext4", "-q", "-d", tree, disk, "16m").CombinedOutput(); err != nil {
		t.Fatalf("mkfs.ext4: %v\n%s", err, text)
	}
	return mount.Mount{Type: "ext4", Source: disk, Options: []string{"loop"}}
}

// runOn runs a program on a root file system that does not come from an image, and returns its exit code.
func runOn(t *testing.T, node *testnode.Node, under string, rootfs mount.Mount, args ...string) (uint32, error) {
	t.Helper()
	c, ctx := node.Client(t), t.Context()
	container, err := c.NewContainer(ctx, "rootfs", client.WithRuntime(under, nil), client.WithNewSpec(oci.WithProcessArgs(args...)))
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := container.Delete(ctx); err != nil {
			t.Error(err)
		}
	}()
	task, err := container.NewTask(ctx, cio.NullIO, client.WithRootFS([]mount.Mount{rootfs}))
	if err != nil {
		return 0, err
	}
	defer func() {
		if _, err := task.Delete(ctx, client.WithProcessKill); err != nil {
			t.Error(err)
		}
	}()
	exited, err := task.Wait(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := task.Start(ctx); err != nil {
		return 0, err
	}
	status := <-exited
	return status.ExitCode(), status.Error()
}

// A root file system in a disk image works: for native containers as with the stock shim, and for Wasm ones.
// One that a program of the host must serve (FUSE) is left to the stock shim for native containers, and refused
// with a clear error for Wasm ones.
func TestRootfsOfOtherSnapshotters(t *testing.T) {
	nodes.EachVersion(t, func(t *testing.T, node *testnode.Node) {
		node.NoLeaks(t)
		native := diskRootfs(t, testguest.Build(t, "probe-native"), "probe")
		for _, under := range []string{stock, runtime} {
			if code, err := runOn(t, node, under, native, "/probe", "exit", "42"); code != 42 || err != nil {
				t.Errorf("native under %s: %d, %v", under, code, err)
			}
		}
		wasm := diskRootfs(t, testguest.Build(t, "probe"), "app.wasm")
		if code, err := runOn(t, node, runtime, wasm, "/app.wasm", "exit", "42"); code != 42 || err != nil {
			t.Errorf("wasm: %d, %v", code, err)
		}
		fuse := mount.Mount{Type: "fuse3.nosuchhelper", Source: "overlay"}
		_, want := runOn(t, node, stock, fuse, "/probe")
		if _, err := runOn(t, node, runtime, fuse, "/probe"); err == nil || want == nil || err.Error() != want.Error() {
			t.Errorf("native on FUSE: %v; the stock shim says %v", err, want)
		}
		if _, err := runOn(t, node, runtime, fuse, "/app.wasm"); err == nil {
			t.Error("Wasm on FUSE was started")
		} else {
			wantAll(t, err.Error(), []string{"mount root file system", "fuse3.nosuchhelper", "FUSE", "overlayfs"})
		}
	})
}

package test

import (
	"errors"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/wasmshim/containerd-shim-wasm/doctor"
	"github.com/wasmshim/containerd-shim-wasm/internal/testguest"
	"github.com/wasmshim/containerd-shim-wasm/internal/testnode"
	"github.com/wasmshim/containerd-shim-wasm/module"
)

// mountNoexec puts the folder with the shim's programs on a file system that is mounted noexec, as /var is on
// some hardened nodes.
func mountNoexec(t *testing.T) {
	t.Helper()
	if err := os.MkdirAll(module.LibDir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount(module.LibDir, module.LibDir, "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(module.LibDir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	if err := unix.Mount("", module.LibDir, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_NOEXEC, ""); err != nil {
		t.Fatal(err)
	}
}

// Files and layers run, and the verbs for users work, where programs below /var may not be executed.
func TestNoexecVar(t *testing.T) {
	probe := testguest.Build(t, "hello-c")
	for _, version := range testnode.Versions() {
		t.Run("containerd-"+version, func(t *testing.T) {
			mountNoexec(t)
			node := installedNode(t, version)
			for _, format := range []string{"image", "layer"} {
				ref := "example.com/noexec/" + format + ":latest"
				imageVerb(t, node.Node, "pack", probe, "-t", ref, "--format", format, "--import")
				node.NoLeaks(t)
				check(t, format, node.Ctr(t, "run", "--rm", "--runtime", runtime, ref, "noexec-"+format), testnode.Result{Stdout: greeting})
			}
			rows := askDoctor(t, node.Address())
			for _, check := range []string{"programs", "cache", "test run"} {
				if r := rowOf(t, rows, check); r.State == doctor.Wrong {
					t.Errorf("%+v", r)
				}
			}
			output, err := shimCommand(t, "cache", "ls").CombinedOutput()
			if err != nil {
				t.Error(errors.Join(err, errors.New(string(output))))
			}
		})
	}
}

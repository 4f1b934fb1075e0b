package test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/wasmshim/containerd-shim-wasm/internal/testguest"
	"github.com/wasmshim/containerd-shim-wasm/internal/testnode"
)

// mountAt mounts a file system for the duration of a test.
func mountAt(t *testing.T, source, target, kind string, flags uintptr, options string) {
	t.Helper()
	if err := unix.Mount(source, target, kind, flags, options); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(target, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
}

// If compiled modules cannot be stored, containers still run, the log has a warning, and nothing is left
// behind.
func TestCacheThatCannotBeWritten(t *testing.T) {
	const ref = "example.com/nocache/hello:latest"
	image := testguest.Image(t, ref, testguest.ImageOpts{
		Files: map[string]string{"/app.wasm": ownGuest(t, "hello-c")}, Entrypoint: []string{"/app.wasm"},
	})
	for name, spoil := range map[string]func(t *testing.T, dir string){
		"full": func(t *testing.T, dir string) {
			mountAt(t, "tmpfs", dir, "tmpfs", 0, "size=8k,mode=0700")
		},
		"read-only": func(t *testing.T, dir string) {
			mountAt(t, dir, dir, "", unix.MS_BIND, "")
			if err := unix.Mount("", dir, "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY, ""); err != nil {
				t.Fatal(err)
			}
		},
		"no folder": func(t *testing.T, dir string) {
			if err := os.Remove(dir); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(dir, nil, 0o600); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			nodes.EachVersion(t, func(t *testing.T, node *testnode.Node) {
				node.Import(t, image)
				node.NoLeaks(t)
				dir, file := newCache(t)
				spoil(t, dir)
				log, err := os.Stat(node.Log())
				if err != nil {
					t.Fatal(err)
				}
				for range 2 {
					got := node.Ctr(t, "run", "--rm", "--runtime", runtime, "--runtime-config-path", file, ref, "hello")
					if got.Code != 0 || !strings.Contains(got.Stdout, "hello") {
						t.Errorf("%+v", got)
					}
				}
				warning := fmt.Sprintf("the compile cache in %s cannot be written", dir)
				if !eventually(func() bool { return strings.Contains(node.LogTail(log.Size(), 1000), warning) }) {
					t.Error("the log says nothing of the cache")
				}
				noPreparer(t)
			})
		})
	}
}

// A tampered file in the cache never runs, and the containers still run.
func TestTamperedEntryIsCompiledAnew(t *testing.T) {
	const ref = "example.com/nocache/tampered:latest"
	image := testguest.Image(t, ref, testguest.ImageOpts{
		Files: map[string]string{"/app.wasm": ownGuest(t, "hello-c")}, Entrypoint: []string{"/app.wasm"},
	})
	nodes.EachVersion(t, func(t *testing.T, node *testnode.Node) {
		node.Import(t, image)
		node.NoLeaks(t)
		dir, file := newCache(t)
		run := func() {
			t.Helper()
			got := node.Ctr(t, "run", "--rm", "--runtime", runtime, "--runtime-config-path", file, ref, "hello")
			if got.Code != 0 || !strings.Contains(got.Stdout, "hello") {
				t.Fatalf("%+v", got)
			}
		}
		if !untilKept(t, dir, run, func() bool { return isKept(t, dir) }) {
			t.Errorf("the cache keeps %q to itself", ownCode(t, dir))
		}
		path := compiledFile(t, dir)
		blob, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := blob.WriteAt(make([]byte, 64), 4096); err != nil {
			t.Fatal(err)
		}
		if err := blob.Close(); err != nil {
			t.Fatal(err)
		}
		got := node.Ctr(t, "run", "--rm", "--runtime", runtime, "--runtime-config-path", file, ref, "hello")
		if got.Code != 0 || !strings.Contains(got.Stdout, "hello") {
			t.Errorf("%+v", got)
		}
		if !isIdle(t, dir) {
			t.Error("the cache is still at work")
		}
		// containerd cannot repair a blob: the compiled module stays in the cache until the image has been
		// pulled again.
		if again := compiledFile(t, dir); filepath.Dir(filepath.Dir(again)) != dir {
			t.Errorf("the cache takes %s for whole", again)
		}
	})
}

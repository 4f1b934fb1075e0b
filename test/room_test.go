package test

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/containerd/v2/pkg/oci"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/wasmshim/containerd-shim-wasm/internal/testguest"
	"github.com/wasmshim/containerd-shim-wasm/internal/testnode"
	"github.com/wasmshim/containerd-shim-wasm/worker/control"
)

// rlimit replaces a resource limit of the specification.
func rlimit(kind string, value uint64) oci.SpecOpts {
	return func(_ context.Context, _ oci.Client, _ *containers.Container, s *oci.Spec) error {
		s.Process.Rlimits = slices.DeleteFunc(s.Process.Rlimits, func(r specs.POSIXRlimit) bool { return r.Type == kind })
		limited(kind, value)(s)
		return nil
	}
}

// roomy are commands that use all threads of the engine.
var roomy = map[string][]string{
	"arguments": {"args", "x"},
	"input":     {"cat"},
	"files":     {"write", "/tmp/a", "x", ",", "read", "/tmp/a"},
}

// podCgroup makes a cgroup with a limit of processes and threads, and returns its path for a specification. The
// cgroup is removed at the end of the test.
func podCgroup(t *testing.T, limit int) string {
	t.Helper()
	const root = "/sys/fs/cgroup"
	name := fmt.Sprintf("room-%d-%d", os.Getpid(), limit)
	dir := filepath.Join(root, "pids", name)
	if _, err := os.Stat(filepath.Join(root, "cgroup.controllers")); err == nil {
		dir = filepath.Join(root, name)
		if err := os.WriteFile(filepath.Join(root, "cgroup.subtree_control"), []byte("+pids"), 0); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		paths, err := filepath.Glob(filepath.Join(root, "*", name))
		for _, path := range append(paths, filepath.Join(root, name)) {
			if removed := os.Remove(path); !errors.Is(removed, fs.ErrNotExist) {
				err = errors.Join(err, removed)
			}
		}
		if err != nil {
			t.Error(err)
		}
	})
	if err := os.WriteFile(filepath.Join(dir, "pids.max"), []byte(strconv.Itoa(limit)), 0); err != nil {
		t.Fatal(err)
	}
	return "/" + name
}

// A module and a component run with the smallest accepted limits.
func TestLeastRoom(t *testing.T) {
	eachVersionWithComponents(t, func(t *testing.T, node *testnode.Node) {
		for name, limit := range map[string]oci.SpecOpts{
			"threads": oci.WithPidsLimit(control.LeastThreads),
			"files":   rlimit("RLIMIT_NOFILE", control.LeastFiles),
		} {
			for command, args := range roomy {
				for _, program := range []string{"/module.wasm", "/app.wasm"} {
					k := asComponent.createArgs(t, node, append([]string{program}, args...), limit)
					k.start()
					if code := k.code(); code != 0 {
						t.Errorf("the least %s, %s of %s: exit code %d, output %q", name, command, program, code, k.output.String())
					}
				}
			}
		}
	})
}

// unlike returns the path of a module that does nothing and that is in no cache.
func unlike(t *testing.T) string {
	t.Helper()
	name := rand.Text()[:16]
	custom := append([]byte{0, byte(1 + len(name)), byte(len(name))}, name...) // a custom section without meaning
	path := filepath.Join(t.TempDir(), "app.wasm")
	if err := os.WriteFile(path, append(testguest.Big(1), custom...), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// The processes that compile count toward the pod's limit, too.
func TestPodsPidsLimitWhileCompiling(t *testing.T) {
	nodes.EachVersion(t, func(t *testing.T, node *testnode.Node) {
		w := way{"compiled", runtime, "example.com/tests/room:latest", nil}
		files := map[string]string{}
		for limit := 2; limit <= control.LeastThreads+2; limit++ {
			files[fmt.Sprintf("/%d.wasm", limit)] = unlike(t)
		}
		node.Import(t, testguest.Image(t, w.image, testguest.ImageOpts{Files: files}))
		node.NoLeaks(t)
		refused := 0
		for limit := 2; limit <= control.LeastThreads+2; limit++ {
			k, err := w.tryCreate(t, node, node.Client(t), []string{fmt.Sprintf("/%d.wasm", limit)}, oci.WithCgroup(podCgroup(t, limit)+"/app"))
			if err == nil {
				err = k.Start(k.ctx)
			}
			if err == nil {
				k.expectCode(0)
				continue
			}
			refused++
			if !strings.Contains(err.Error(), "limit of processes and threads") {
				t.Errorf("with %d: %v", limit, err)
			}
		}
		if refused == 0 {
			t.Error("everything runs, so nothing was tested")
		}
	})
}

// RLIMIT_NPROC counts all processes of the user, whatever container they are in.
func TestUsersProcessLimit(t *testing.T) {
	eachVersionWithTasks(t, func(t *testing.T, node *testnode.Node) {
		limited := []oci.SpecOpts{oci.WithUIDGID(61234, 61234), rlimit("RLIMIT_NPROC", control.LeastThreads)}
		var err error
		for n := 0; n < 4 && err == nil; n++ {
			var k *task
			if k, err = asWasm.tryCreate(t, node, node.Client(t), asWasm.programs["sleep"], limited...); err == nil {
				err = k.Start(k.ctx)
			}
			if err == nil {
				k.output.await(t, "sleeping")
			}
		}
		if err == nil || !strings.Contains(err.Error(), "RLIMIT_NPROC") {
			t.Errorf("with four containers of one user: %v", err)
		}
	})
}

// The limit may be set on the pod's cgroup, which is in no specification. A container that cannot run within
// the limit gets an error from its creation or start. It never ends like a trapped guest, and never hangs.
func TestPodsPidsLimit(t *testing.T) {
	eachVersionWithComponents(t, func(t *testing.T, node *testnode.Node) {
		refused := 0
		for limit := 2; limit <= control.LeastThreads+2; limit++ {
			pod := podCgroup(t, limit)
			for command, args := range roomy {
				name := fmt.Sprintf("%s with %d", command, limit)
				k, err := asComponent.tryCreate(t, node, node.Client(t), append([]string{"/module.wasm"}, args...), oci.WithCgroup(pod+"/"+strings.ReplaceAll(name, " ", "-")))
				if err == nil {
					err = k.Start(k.ctx)
				}
				if err != nil {
					refused++
					if !strings.Contains(err.Error(), "limit of processes and threads") {
						t.Errorf("%s: %v", name, err)
					}
					continue
				}
				if code := k.code(); code != 0 {
					t.Errorf("%s: exit code %d, output %q", name, code, k.output.String())
				}
			}
		}
		if refused == 0 {
			t.Error("everything runs, so nothing was tested")
		}
	})
}

package test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/containerd/containerd/v2/pkg/oci"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/wasmshim/containerd-shim-wasm/internal/testnode"
)

// asArgo is the command of one of Argo's containers, with a guest that runs for ever.
func asArgo(argoexec string) []string {
	return []string{argoexec, "emissary", "--loglevel", "info", "--log-format", "text", "--", argoWasm.probe(), "loop"}
}

// atArgosPlace mounts a folder of the host as a volume of a pod, at the path that Argo uses.
func atArgosPlace(source string, options ...string) oci.SpecOpts {
	return oci.WithMounts([]specs.Mount{{Destination: argoDir, Type: "bind", Source: source, Options: options}})
}

// filesBelow returns the names of everything in a folder.
func filesBelow(t *testing.T, folder string) string {
	t.Helper()
	var names []string
	err := filepath.WalkDir(folder, func(path string, _ fs.DirEntry, err error) error {
		if path != folder {
			names = append(names, strings.TrimPrefix(path, folder+"/"))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(names, " ")
}

// The daemon is root, and a pod's author chooses the volume at Argo's path, the container's user and its
// command. The daemon must write nothing, neither exit code nor progress file, where the container itself
// cannot write.
func TestNothingIsWrittenWhereTheContainerMayNotWrite(t *testing.T) {
	user := oci.WithUIDGID(1000, 1000)
	volume := func(t *testing.T, mode fs.FileMode) string {
		dir := t.TempDir()
		if err := errors.Join(os.Chmod(dir, mode), os.WriteFile(filepath.Join(dir, "template"), []byte(plainTemplate), 0o444)); err != nil {
			t.Fatal(err)
		}
		return dir
	}
	type place struct {
		argoexec string
		options  []string
		mode     fs.FileMode
		name     string
		covered  bool // by a later mount
	}
	real := argoDir + "/argoexec"
	places := map[string]place{
		"read-only":             {argoexec: real, options: []string{"rbind", "ro"}, mode: 0o777, name: "any"},
		"recursively read-only": {argoexec: real, options: []string{"rbind", "rro"}, mode: 0o777, name: "any"},
		"not the user's":        {argoexec: real, options: []string{"rbind"}, mode: 0o755, name: "any"},
		"another argoexec":      {argoexec: "/x/argoexec", options: []string{"rbind", "ro"}, mode: 0o777, name: "any"},
		"no name":               {argoexec: real, options: []string{"rbind"}, mode: 0o777, name: ".."},
		"covered":               {argoexec: real, options: []string{"rbind"}, mode: 0o777, name: "any", covered: true},
	}
	withEmissary(t, func(t *testing.T, node *testnode.Node) {
		for name, p := range places {
			t.Run(name, func(t *testing.T) {
				shown := volume(t, p.mode)
				opts := []oci.SpecOpts{user, atArgosPlace(shown, p.options...), oci.WithEnv([]string{"ARGO_CONTAINER_NAME=" + p.name})}
				if name != "no name" {
					opts = append(opts, oci.WithEnv([]string{"ARGO_PROGRESS_FILE=" + argoDir + "/progress"}))
				}
				if p.covered {
					opts = append(opts, atArgosPlace(volume(t, 0o755), "rbind", "ro"))
				}
				k := argoWasm.createArgs(t, node, asArgo(p.argoexec), opts...)
				k.start()
				k.code()
				if got := filesBelow(t, shown); got != "template" {
					t.Errorf("after a run there is %q", got)
				}
				// A failed creation writes nothing either.
				opts = append(opts, oci.WithProcessArgs(append(asArgo(p.argoexec)[:7], "/missing.wasm")...))
				if _, err := argoWasm.tryCreate(t, node, node.Client(t), nil, opts...); err == nil {
					t.Error("a container of no module was created")
				}
				if got := filesBelow(t, shown); got != "template" {
					t.Errorf("after a failed creation there is %q", got)
				}
			})
		}
	})
}

// If the container may write to the volume, the exit code is written there, and the file belongs to the
// container's user.
func TestExitCodeIsTheContainersOwn(t *testing.T) {
	withEmissary(t, func(t *testing.T, node *testnode.Node) {
		volume := t.TempDir()
		if err := os.Chmod(volume, 0o777); err != nil {
			t.Fatal(err)
		}
		args := append(asArgo(argoDir + "/argoexec")[:7], "/missing.wasm")
		opts := []oci.SpecOpts{oci.WithUIDGID(1000, 1000), atArgosPlace(volume, "rbind"), oci.WithEnv([]string{"ARGO_CONTAINER_NAME=main"})}
		if _, err := argoWasm.tryCreate(t, node, node.Client(t), args, opts...); err == nil {
			t.Fatal("a container of no module was created")
		}
		for _, path := range []string{"ctr", "ctr/main", "ctr/main/exitcode"} {
			info, err := os.Stat(filepath.Join(volume, path))
			if err != nil {
				t.Fatal(err)
			}
			if uid := info.Sys().(*syscall.Stat_t).Uid; uid != 1000 {
				t.Errorf("%s belongs to user %d", path, uid)
			}
		}
	})
}

// Nothing is left of a container whose daemon was killed, whatever step of the cleanup fails.
func TestDeleteVerbKillsFirst(t *testing.T) {
	for name, spoil := range map[string]func(t *testing.T, volume string){
		"ctr is a file": func(t *testing.T, volume string) {
			ctr := filepath.Join(volume, "ctr")
			if err := errors.Join(os.RemoveAll(ctr), os.WriteFile(ctr, nil, 0o644)); err != nil {
				t.Fatal(err)
			}
		},
		"no volume": func(t *testing.T, volume string) {
			if err := os.RemoveAll(volume); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			withEmissary(t, func(t *testing.T, node *testnode.Node) {
				// If the pid namespace is not the container's own, the kernel does not kill the other processes
				// when the first one ends.
				e := argoWasm.emissary(t, node, plainTemplate, nil, []string{"loop"}, oci.WithHostNamespace(specs.PIDNamespace))
				e.start()
				e.output.await(t, "looping")
				pids := e.pids(t)
				if len(pids) < 2 {
					t.Fatalf("it runs processes %v, want the worker's and the guest's", pids)
				}
				spoil(t, e.volume)
				if err := syscall.Kill(int(e.connect().ShimPid), syscall.SIGKILL); err != nil {
					t.Fatal(err)
				}
				e.awaitRemoval()
				for _, pid := range pids {
					waitFor(t, func() bool { return !alive(pid) }, "the end of process %d", pid)
				}
			})
		})
	}
}

// pids returns the processes of the task.
func (k *task) pids(t *testing.T) []uint32 {
	t.Helper()
	infos, err := k.Pids(k.ctx)
	if err != nil {
		t.Fatal(err)
	}
	var pids []uint32
	for _, info := range infos {
		pids = append(pids, info.Pid)
	}
	return pids
}

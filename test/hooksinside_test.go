package test

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/containerd/containerd/v2/pkg/oci"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/wasmshim/containerd-shim-wasm/internal/testnode"
)

// lookAround is a createContainer hook. It records what it finds, and changes the root file system as NVIDIA's
// hooks do: it takes the path of the root file system from config.json.
const lookAround = `#!/bin/sh
exec >>"$1" 2>&1
state=$(cat)
bundle=$(printf %s "$state" | sed 's/.*"bundle":"\([^"]*\)".*/\1/')
rootfs=$bundle/$(tr -d '\n' <"$bundle/config.json" | sed 's/.*"root":{"path":"\([^"]*\)".*/\1/')
echo "state $state"
echo "directory $(pwd)"
for kind in cgroup ipc mnt net pid user uts; do echo "namespace-$kind $(readlink /proc/self/ns/$kind)"; done
while read -r name value; do
	case $name in Uid:|Gid:|Groups:|Cap???:|NoNewPrivs:|Seccomp:) echo "$name $value" ;; esac
done </proc/self/status
echo "umask $(umask)"
echo "environment $(env | grep -v -e ^PWD= -e ^_= -e ^SHLVL= -e ^OLDPWD= | sort | tr '\n' ' ')"
echo "descriptors $(ls /proc/self/fd | tr '\n' ' ')"
for device in "$rootfs"/dev/*; do echo "device-${device##*/} $(stat -c %F,%t,%T,%a "$device")"; done
sed 's/^/mountinfo /' /proc/self/mountinfo
test -w "$rootfs" && echo "root writable"
ln -s /target "$rootfs/link-of-the-hook"
mkdir "$rootfs/made" && mount -t tmpfs tmpfs "$rootfs/made" && echo from the hook >"$rootfs/made/file"
`

// around returns the values that lookAround has recorded, by name. It replaces the container's own namespaces
// and ID by fixed words.
func around(t *testing.T, path string, k *task) map[string]string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	rootfs := filepath.Join(k.node.Bundle(k.container.ID()), "rootfs")
	found := map[string]string{}
	for line := range strings.Lines(string(text)) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		kind, isNamespace := strings.CutPrefix(name, "namespace-")
		switch {
		case name == "mountinfo":
			fields := strings.Fields(value)
			if at, inside := strings.CutPrefix(fields[4], rootfs); inside {
				found["mount at /"+strings.TrimPrefix(at, "/")] = fields[slices.Index(fields, "-")+1]
			}
			continue
		case isNamespace && value == namespaceOf(t, int(k.Pid()), kind):
			value = "the container's"
		case isNamespace && value == namespaceOf(t, os.Getpid(), kind):
			value = "the runtime's"
		case isNamespace:
			value = "another"
		}
		found[strings.TrimSuffix(name, ":")] = strings.ReplaceAll(strings.TrimSpace(value), k.container.ID(), "ID")
	}
	return found
}

// differentAround lists what differs between a createContainer hook of a Wasm container and one that runc runs.
var differentAround = map[string][2]string{
	"namespace-pid":  {"another", "the container's"},
	"mount at /proc": {"tmpfs", "proc"},
	"device-ptmx":    {"", "symbolic link,0,0,777"},
}

// A createContainer hook finds the same as under runc, except what differentAround lists. Its changes to the
// root file system are visible in the container, read-only or not.
func TestCreateContainerHook(t *testing.T) {
	eachVersionWithTasks(t, func(t *testing.T, node *testnode.Node) {
		run := func(w way, args ...string) (map[string]string, string) {
			dir := t.TempDir()
			script, told := filepath.Join(dir, "hook"), filepath.Join(dir, "told")
			if err := os.WriteFile(script, []byte(lookAround), 0o755); err != nil {
				t.Fatal(err)
			}
			k := w.createArgs(t, node, args, oci.WithRootFSReadonly(), oci.WithEnv([]string{"LD_PRELOAD=/of-the-image.so"}),
				withHooks(specs.Hooks{CreateContainer: []specs.Hook{{Path: script, Args: []string{"hook", told}}}}))
			found := around(t, told, k)
			k.start()
			if code := k.code(); code != 0 {
				t.Errorf("%s: exit code %d", w.name, code)
			}
			return found, k.output.String()
		}
		native, output := run(asStock, "sh", "-c", "unset LD_PRELOAD; ls /; cat /made/file")
		if !strings.Contains(output, "link-of-the-hook\nmade\n") || !strings.Contains(output, "from the hook") {
			t.Errorf("runc: the container sees\n%s", output)
		}
		wasm, output := run(asWasm, "/app.wasm", "ls", "/", ",", "read", "/made/file")
		if !strings.Contains(output, "link-of-the-hook\nmade\n") || !strings.Contains(output, "from the hook") {
			t.Errorf("the container sees\n%s", output)
		}
		if got := wasm["descriptors"]; got != "0 1 2 3" { // the last one belongs to ls
			t.Errorf("it has the descriptors %q", got)
		}
		delete(wasm, "descriptors")
		delete(native, "descriptors") // runc leaves some more open
		names := maps.Clone(wasm)
		maps.Copy(names, native)
		for name := range names {
			want, isDifferent := differentAround[name]
			switch {
			case isDifferent && (wasm[name] != want[0] || native[name] != want[1]):
				t.Errorf("%s: ours finds %q, runc's %q; want %q", name, wasm[name], native[name], want)
			case !isDifferent && wasm[name] != native[name]:
				t.Errorf("%s: ours finds %q, runc's %q", name, wasm[name], native[name])
			}
		}
	})
}

// createContainer hooks run before the container has a process, and so before the hooks whose state has the pid
// of that process. The specification has the opposite order. If other processes live in the pid namespace, the
// hooks get no pid.
func TestCreateContainerHookComesFirst(t *testing.T) {
	eachVersionWithTasks(t, func(t *testing.T, node *testnode.Node) {
		for name, c := range map[string]struct {
			opt oci.SpecOpts
			pid int
		}{"new pid namespace": {oci.WithRootFSReadonly(), 1}, "the host's": {oci.WithHostNamespace(specs.PIDNamespace), 0}} {
			l := newHookLog(t)
			k := asWasm.create(t, node, "sleep", c.opt, withHooks(specs.Hooks{
				CreateRuntime: []specs.Hook{l.hook("createRuntime")}, CreateContainer: []specs.Hook{l.hook("createContainer")},
			}))
			if got := fmt.Sprint(l.names(t)); got != "[createContainer creating createRuntime creating]" {
				t.Errorf("%s: %s were run", name, got)
			}
			if got := l.read(t)[0].state.Pid; got != c.pid {
				t.Errorf("%s: the hook was told of process %d, want %d", name, got, c.pid)
			}
			k.remove()
			k.Task = nil
		}
	})
}

// leaveTwo is a script that leaves processes behind. It writes down the pid of a third one, which does so too.
const leaveTwo = `(sleep 1000 & setsid sleep 1000 & read -r pid rest </proc/self/stat; echo $pid >"$1"; exec sleep 1000) & `

// Processes that a createContainer hook leaves behind end with the hook, before anything of the container runs.
func TestCreateContainerHookLeavesNothing(t *testing.T) {
	eachVersionWithTasks(t, func(t *testing.T, node *testnode.Node) {
		said := filepath.Join(t.TempDir(), "said")
		hook := specs.Hook{Path: "/bin/sh", Args: []string{"sh", "-c", leaveTwo + `until test -s "$1"; do :; done`, "hook", said}}
		k := asWasm.run(t, node, "sleep", "sleeping", withHooks(specs.Hooks{CreateContainer: []specs.Hook{hook}}))
		if pid := awaitPid(t, said); alive(pid) {
			t.Errorf("process %d lives", pid)
		}
		k.stop()
	})
}

// A running createContainer hook ends with the daemon, and the delete verb runs the poststop hooks.
func TestCreateContainerHookEndsWithTheDaemon(t *testing.T) {
	eachVersionWithTasks(t, func(t *testing.T, node *testnode.Node) {
		said, created, l := filepath.Join(t.TempDir(), "said"), make(chan error, 1), newHookLog(t)
		hook := specs.Hook{Path: "/bin/sh", Args: []string{"sh", "-c", leaveTwo + "sleep 1000", "hook", said}}
		go func() {
			_, err := asWasm.tryCreate(t, node, node.Client(t), asWasm.programs["sleep"], withHooks(specs.Hooks{
				CreateContainer: []specs.Hook{hook}, Poststop: []specs.Hook{l.hook("poststop")},
			}))
			created <- err
		}()
		left := awaitPid(t, said)
		hooked := parentOf(t, left)
		if err := syscall.Kill(int(parentOf(t, hooked)), syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		for _, pid := range []uint32{left, hooked} {
			waitFor(t, func() bool { return !alive(pid) }, "the end of process %d", pid)
		}
		if err := <-created; err == nil {
			t.Error("it was created")
		}
		waitFor(t, func() bool { return slices.Equal(l.names(t), []string{"poststop stopped"}) }, "the poststop hook")
	})
}

// awaitPid waits for a process to write its pid to a file.
func awaitPid(t *testing.T, path string) uint32 {
	t.Helper()
	var pid uint64
	waitFor(t, func() bool {
		text, err := os.ReadFile(path)
		if err == nil {
			pid, err = strconv.ParseUint(strings.TrimSpace(string(text)), 10, 32)
		}
		return err == nil
	}, "a pid in %s", path)
	return uint32(pid)
}

func parentOf(t *testing.T, pid uint32) uint32 {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	fields := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
	parent, err := strconv.ParseUint(fields[1], 10, 32)
	if err != nil {
		t.Fatal(err)
	}
	return uint32(parent)
}

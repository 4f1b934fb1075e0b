package sandbox

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/wasmshim/containerd-shim-wasm/hooks"
)

// hookSays is a script that writes its own state and that of the root file system to a file. It then changes
// the root file system: it makes a link, a file and a mount.
const hookSays = `exec >"$1"
rootfs=$2
cd / && cat >/dev/null
for kind in mnt net ipc uts pid; do echo "$kind $(readlink /proc/self/ns/$kind)"; done
while read -r name value; do
	case $name in CapEff:|NoNewPrivs:|Seccomp:) echo "$name $value" ;; esac
done </proc/self/status
echo "umask $(umask)"
echo "files" $(ls $rootfs)
echo "volume" $(ls $rootfs/v)
echo "device" $(stat -c %F $rootfs/dev/one)
echo "descriptors" $(ls /proc/self/fd)
echo "ours $MARK"
ln -s file $rootfs/link
mount -t tmpfs tmpfs $rootfs/v
touch $rootfs/v/mounted
`

// said returns the lines that hookSays has written, by their first words.
func said(t *testing.T, path string) map[string]string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]string{}
	for line := range strings.Lines(string(text)) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		found[strings.TrimSuffix(name, ":")] = strings.Join(strings.Fields(value), " ")
	}
	return found
}

// runsHook returns a Launch.CreateContainer that runs a shell script with arguments as a hook.
func runsHook(script string, args ...string) func(context.Context, string) error {
	return func(ctx context.Context, rootfs string) error {
		hook := specs.Hook{
			Path: "/bin/sh", Args: append([]string{"sh", "-c", script, "hook"}, append(args, rootfs)...),
			Env: []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "MARK=mark"},
		}
		return hooks.CreateContainer(ctx, &specs.Hooks{CreateContainer: []specs.Hook{hook}}, specs.State{}, rootfs)
	}
}

func linkAt(t *testing.T, path string) string {
	t.Helper()
	target, err := os.Readlink(path)
	if err != nil {
		t.Fatal(err)
	}
	return target
}

// A createContainer hook is in the container's namespaces and sees both the host's files and the container's. The
// container has its changes and mounts, also if the root file system becomes read-only afterwards. The host does not
// have the mounts.
func TestCreateContainerHook(t *testing.T) {
	spec, told := probed(t), filepath.Join(t.TempDir(), "told")
	spec.Mounts[1].Options = []string{"rbind", "rw"}
	spec.Linux.Devices = []specs.LinuxDevice{{Path: "/dev/one", Type: "c", Major: 1, Minor: 3}}
	volume := spec.Mounts[1].Source
	worker := probeBy(t, spec, Launch{Worker: open(t, buildProbe(t)), CreateContainer: runsHook(hookSays, told)})
	hook := said(t, told)
	if want := []string{"dev", "file", "link", "proc", "t", "v"}; !slices.Equal(worker.Rootfs, want) {
		t.Errorf("the worker sees %q, want %q", worker.Rootfs, want)
	}
	if want := []string{"mounted"}; !slices.Equal(worker.Volume, want) {
		t.Errorf("in the volume the worker sees %q, want %q", worker.Volume, want)
	}
	if worker.PID != 1 || worker.Attempts["write to the root"] != "EROFS" {
		t.Errorf("the worker has pid %d, and writes to the root: %s", worker.PID, worker.Attempts["write to the root"])
	}
	for name, want := range map[string]string{
		"umask": "0022", "files": "dev file proc t v", "volume": "kept", "device": "character special file",
		"descriptors": "0 1 2 3", "ours": "mark",
		"CapEff": fmt.Sprintf("%016x", ownCapabilities(t)), "NoNewPrivs": "0", "Seccomp": "0", // ls itself opens 3
	} {
		if hook[name] != want {
			t.Errorf("of %s the hook says %q, want %q", name, hook[name], want)
		}
	}
	for _, kind := range []string{"mnt", "net", "ipc", "uts", "pid"} {
		if hook[kind] == "" || hook[kind] == linkAt(t, "/proc/self/ns/"+kind) {
			t.Errorf("the hook's %s namespace is the host's: %q", kind, hook[kind])
		}
	}
	if _, err := os.Stat(filepath.Join(volume, "kept")); err != nil {
		t.Errorf("what the hook has mounted is mounted on the host: %v", err)
	}
}

func ownCapabilities(t *testing.T) uint64 {
	t.Helper()
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		t.Fatal(err)
	}
	return uint64(data[1].Effective)<<32 | uint64(data[0].Effective)
}

// With shared mount propagation, a hook sees the root file system, and the host still does not.
func TestCreateContainerHookAlone(t *testing.T) {
	shared := t.TempDir()
	if err := unix.Mount("tmpfs", shared, "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := unix.Unmount(shared, 0); err != nil { // EBUSY if something is mounted in it
			t.Error(err)
		}
	}()
	spec := probed(t)
	spec.Root.Path = filepath.Join(shared, "root")
	if err := errors.Join(unix.Mount("", shared, "", unix.MS_SHARED, ""), os.Mkdir(spec.Root.Path, 0o755)); err != nil {
		t.Fatal(err)
	}
	s, err := New(t.TempDir(), "rshared")
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	mounts := []Mount{{Type: "tmpfs", Source: "tmpfs"}}
	if err := errors.Join(s.ViewRootfs(mounts, spec.Root, ""), s.MountRootfs(mounts, spec.Root, "")); err != nil {
		t.Fatal(err)
	}
	null := open(t, os.DevNull)
	child, err := s.Launch(t.Context(), Launch{
		Spec: spec, Process: spec.Process, Worker: open(t, "/bin/busybox"), Argv: []string{"true"}, Files: []*os.File{null, null, null},
		CreateContainer: runsHook(`test -d "$1/t" && touch "$1/file" && mkdir "$1/made" && mount -t tmpfs tmpfs "$1/made"`),
	})
	if err != nil {
		t.Fatal(err)
	}
	end(t, child)
}

// hookWaits is a script that starts two processes, writes its own pid, and waits. The two processes outlive it.
const hookWaits = `read -r pid rest </proc/self/stat
sleep 1000 >/dev/null 2>&1 &
setsid sleep 1000 >/dev/null 2>&1 &
echo $pid >"$1"
read -r word <"$2"
`

// No process in the container's pid namespace, which other containers may share, sees a hook. A hook leaves no
// process behind.
func TestCreateContainerHookIsOutOfReach(t *testing.T) {
	i, dir := startIntruder(t, 0), t.TempDir()
	says, hears := filepath.Join(dir, "says"), filepath.Join(dir, "hears")
	for _, path := range []string{says, hears} {
		if err := unix.Mkfifo(path, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	namespace := make(chan string, 1)
	go func() {
		text, err := os.ReadFile(says)
		if err != nil {
			t.Error(err)
		}
		pid := strings.TrimSpace(string(text))
		status, err := os.ReadFile("/proc/" + pid + "/status")
		if err != nil {
			t.Error(err)
		}
		if want := "NSpid:\t" + pid + "\t1\n"; !strings.Contains(string(status), want) {
			t.Errorf("the hook is not process 1 of a namespace just below ours: %q is not in\n%s", want, status)
		}
		if seen := processes(t, fmt.Sprintf("/proc/%d/root/proc", i.pid)); !slices.Equal(seen, []string{"1"}) {
			t.Errorf("the intruder sees the processes %q, want only itself", seen)
		}
		of, err := os.Readlink("/proc/" + pid + "/ns/pid")
		if err != nil {
			t.Error(err)
		}
		namespace <- of
		if err := os.WriteFile(hears, []byte("go on\n"), 0); err != nil {
			t.Error(err)
		}
	}()
	run := func(ctx context.Context, rootfs string) error {
		if err := runsHook(hookWaits, says, hears)(ctx, rootfs); err != nil {
			return err
		}
		lived := <-namespace
		for _, pid := range processes(t, "/proc") {
			if of, err := os.Readlink("/proc/" + pid + "/ns/pid"); err == nil && of == lived {
				t.Errorf("process %s of the hook's pid namespace is left", pid)
			}
		}
		return nil
	}
	child, err := launchBusybox(t.Context(), t, i.beside(t, 0), nil, Launch{CreateContainer: run}, open(t, os.DevNull), "true")
	if err != nil {
		t.Fatal(err)
	}
	end(t, child)
}

// processes returns the names of the process directories in a mount of proc.
func processes(t *testing.T, proc string) []string {
	t.Helper()
	entries, err := os.ReadDir(proc)
	if err != nil {
		t.Error(err)
	}
	var pids []string
	for _, entry := range entries {
		if _, err := strconv.Atoi(entry.Name()); err == nil {
			pids = append(pids, entry.Name())
		}
	}
	return pids
}

// The pid namespace is the one at its path before the hooks were run. A hook cannot exchange it.
func TestPIDNamespaceIsFoundBeforeTheHooks(t *testing.T) {
	i, path := startIntruder(t, 0), filepath.Join(t.TempDir(), "pid")
	spec := i.beside(t, 0)
	for n, ns := range spec.Linux.Namespaces {
		if ns.Type == specs.PIDNamespace {
			if err := os.Symlink(ns.Path, path); err != nil {
				t.Fatal(err)
			}
			spec.Linux.Namespaces[n].Path = path
		}
	}
	exchange := func(context.Context, string) error {
		return errors.Join(os.Remove(path), os.Symlink("/proc/self/ns/pid", path))
	}
	child, err := launchBusybox(t.Context(), t, spec, nil, Launch{CreateContainer: exchange}, open(t, os.DevNull), "true")
	if err != nil {
		t.Fatal(err)
	}
	defer end(t, child)
	if got, want := linkAt(t, fmt.Sprintf("/proc/%d/ns/pid", child.PID)), linkAt(t, fmt.Sprintf("/proc/%d/ns/pid", i.pid)); got != want {
		t.Errorf("the worker is in %s, want %s", got, want)
	}
}

// When a hook fails, the launch fails too.
func TestCreateContainerHookThatFails(t *testing.T) {
	for name, c := range map[string]struct {
		script string
		root   *specs.Root
		want   string
	}{
		"code":     {"echo no link >&2; exit 3", nil, "exit status 3: no link"},
		"moved":    {`umount -l "$1"`, nil, "move root file system"},
		"no place": {"exit 0", &specs.Root{Path: "/nowhere"}, "find root.path"},
		"no path":  {"exit 0", &specs.Root{}, "root.path is missing"},
	} {
		t.Run(name, func(t *testing.T) {
			spec := probed(t)
			s, err := New(t.TempDir(), "")
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			mounts, root := []Mount{{Type: "bind", Source: spec.Root.Path, Options: []string{"rbind"}}}, spec.Root
			if c.root != nil {
				root = c.root
			}
			if err := s.MountRootfs(mounts, root, ""); err != nil {
				t.Fatal(err)
			}
			null := open(t, os.DevNull)
			_, err = s.Launch(t.Context(), Launch{
				Spec: spec, Process: spec.Process, Worker: open(t, "/bin/busybox"), Argv: []string{"true"}, Files: []*os.File{null, null, null},
				CreateContainer: runsHook(c.script),
			})
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want something with %q", err, c.want)
			}
		})
	}
}

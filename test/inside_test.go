package test

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/contrib/seccomp"
	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/containerd/v2/pkg/oci"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/wasmshim/containerd-shim-wasm/internal/testnode"
)

// proc reads a file below /proc/PID of the task.
func (k *task) proc(name string) string {
	k.t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", k.Pid(), name))
	if err != nil {
		k.t.Fatal(err)
	}
	return string(text)
}

// credentials are the lines of /proc/PID/status that show what a process may do.
var credentials = []string{
	"Umask", "Uid", "Gid", "Groups", "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp",
}

// standing returns the named lines of the process's /proc/PID/status.
func (k *task) standing(names []string) map[string]string {
	k.t.Helper()
	return statusLines(k.proc("status"), names)
}

func statusLines(status string, names []string) map[string]string {
	found := map[string]string{}
	for line := range strings.Lines(status) {
		if name, value, _ := strings.Cut(line, ":"); slices.Contains(names, name) {
			found[name] = strings.Join(strings.Fields(value), " ")
		}
	}
	return found
}

// limits returns the process's limits by their names in /proc/PID/limits, as "SOFT HARD".
func (k *task) limits() map[string]string {
	k.t.Helper()
	return limitsOf(k.proc("limits"))
}

func limitsOf(text string) map[string]string {
	found := map[string]string{}
	for line := range strings.Lines(text) {
		const name, values = 26, 2 // the width of the first column, and the number of columns after it
		if fields := strings.Fields(line[name:]); len(fields) >= values {
			found[strings.TrimSpace(line[:name])] = strings.Join(fields[:values], " ")
		}
	}
	return found
}

// pair runs a Wasm and a native container with the same specification.
func pair(t *testing.T, node *testnode.Node, opts ...oci.SpecOpts) (wasm, native *task) {
	t.Helper()
	return asWasm.run(t, node, "loop", "looping\n", opts...), asStock.run(t, node, "sleep", "sleeping\n", opts...)
}

// asked is a process that differs from the default in everything that a specification can set.
func asked(_ context.Context, _ oci.Client, _ *containers.Container, s *specs.Spec) error {
	umask := uint32(0o027)
	s.Process.User = specs.User{UID: 1000, GID: 2000, AdditionalGids: []uint32{3000, 3001}, Umask: &umask}
	s.Process.Capabilities = &specs.LinuxCapabilities{
		Bounding:    []string{"CAP_CHOWN", "CAP_FOWNER", "CAP_KILL", "CAP_NET_BIND_SERVICE"},
		Permitted:   []string{"CAP_FOWNER", "CAP_KILL", "CAP_NET_BIND_SERVICE"},
		Effective:   []string{"CAP_FOWNER", "CAP_NET_BIND_SERVICE"},
		Inheritable: []string{"CAP_FOWNER", "CAP_KILL", "CAP_NET_BIND_SERVICE"},
		Ambient:     []string{"CAP_FOWNER", "CAP_NET_BIND_SERVICE"},
	}
	s.Process.NoNewPrivileges = true
	s.Process.Rlimits = []specs.POSIXRlimit{
		{Type: "RLIMIT_NOFILE", Soft: 500, Hard: 600},
		{Type: "RLIMIT_CORE", Soft: 0, Hard: 4096},
		{Type: "RLIMIT_NPROC", Soft: 200, Hard: 300},
		{Type: "RLIMIT_FSIZE", Soft: 1 << 20, Hard: 1 << 30},
	}
	return nil
}

// The worker, and so the guest, gets the rights and limits of the specification, as a native process does under
// runc. It lacks only the capabilities that a guest cannot use.
func TestInsideAsAsked(t *testing.T) {
	eachVersionWithTasks(t, func(t *testing.T, node *testnode.Node) {
		wasm, native := pair(t, node, asked, seccomp.WithDefaultProfile())
		want := map[string]string{
			"Umask": "0027", "Uid": "1000 1000 1000 1000", "Gid": "2000 2000 2000 2000", "Groups": "3000 3001",
			"CapInh": "0000000000000428", "CapPrm": "0000000000000408", "CapEff": "0000000000000408", "CapBnd": "0000000000000429", "CapAmb": "0000000000000408",
			"NoNewPrivs": "1", "Seccomp": "2",
		}
		for _, k := range []*task{wasm, native} {
			got := k.standing(credentials)
			for name, value := range want {
				if k == wasm && strings.HasPrefix(name, "Cap") {
					value = usable(t, value)
				}
				if got[name] != value {
					t.Errorf("%s: %s is %q, want %q", k.container.ID(), name, got[name], value)
				}
			}
		}
		limits := map[string]string{
			"Max open files": "500 600", "Max core file size": "0 4096", "Max processes": "200 300", "Max file size": "1048576 1073741824",
		}
		for _, k := range []*task{wasm, native} {
			got := k.limits()
			for name, value := range limits {
				if got[name] != value {
					t.Errorf("%s: %s is %q, want %q", k.container.ID(), name, got[name], value)
				}
			}
		}
	})
}

// If the specification sets nothing, a Wasm container has at most the rights of a native one. It lacks those
// that a guest cannot use.
func TestInsideByDefault(t *testing.T) {
	eachVersionWithTasks(t, func(t *testing.T, node *testnode.Node) {
		wasm, native := pair(t, node)
		got, want := wasm.standing(credentials), native.standing(credentials)
		want["NoNewPrivs"], want["Seccomp"] = "1", "2"
		for _, name := range credentials {
			if strings.HasPrefix(name, "Cap") {
				want[name] = usable(t, want[name])
			}
			if got[name] != want[name] || want[name] == "" && name != "Groups" {
				t.Errorf("%s is %q, native %q", name, got[name], want[name])
			}
		}
		if got := wasm.standing([]string{"NSpid"})["NSpid"]; got != fmt.Sprintf("%d 1", wasm.Pid()) {
			t.Errorf("in its pid namespaces it is %q, want 1", got)
		}
	})
}

// namespaces reports for each namespace of the process whether it is the host's.
func (k *task) namespaces() map[string]string {
	k.t.Helper()
	found := map[string]string{}
	for _, name := range []string{"cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts"} {
		own, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/%s", k.Pid(), name))
		if err != nil {
			k.t.Fatal(err)
		}
		host, err := os.Readlink("/proc/self/ns/" + name)
		if err != nil {
			k.t.Fatal(err)
		}
		found[name] = "own"
		if own == host {
			found[name] = "the host's"
		}
	}
	return found
}

func TestInsideNamespacesAndCgroup(t *testing.T) {
	eachVersionWithTasks(t, func(t *testing.T, node *testnode.Node) {
		wasm, native := pair(t, node)
		got, want := wasm.namespaces(), native.namespaces()
		for name := range want {
			if got[name] != want[name] {
				t.Errorf("namespace %s is %s, native: %s", name, got[name], want[name])
			}
		}
		for _, name := range []string{"ipc", "mnt", "net", "pid", "uts"} {
			if got[name] != "own" {
				t.Errorf("namespace %s is %s", name, got[name])
			}
		}
		wasmGroups := strings.ReplaceAll(wasm.proc("cgroup"), wasm.container.ID(), "ID")
		nativeGroups := strings.ReplaceAll(native.proc("cgroup"), native.container.ID(), "ID")
		if wasmGroups != nativeGroups || !strings.Contains(wasmGroups, "/"+node.Namespace+"/ID\n") {
			t.Errorf("cgroups are\n%s\nnative:\n%s", wasmGroups, nativeGroups)
		}
	})
}

// The worker's own root holds nothing of the host. It holds the worker's binary and the module, both immutable,
// and the container's root file system.
func TestInsideMounts(t *testing.T) {
	eachVersionWithTasks(t, func(t *testing.T, node *testnode.Node) {
		wasm := asWasm.run(t, node, "loop", "looping\n")
		own := map[string]string{}
		lines := bufio.NewScanner(strings.NewReader(wasm.proc("mountinfo")))
		for lines.Scan() {
			// proc_pid_mountinfo(5): the fifth field is the mount point, the sixth holds its options.
			fields := strings.Fields(lines.Text())
			if point := fields[4]; point != "/rootfs" && !strings.HasPrefix(point, "/rootfs/") {
				own[point], _, _ = strings.Cut(fields[5], ",")
			}
		}
		want := map[string]string{"/": "ro", "/worker": "ro", "/module": "ro"}
		for point, access := range own {
			if want[point] != access {
				t.Errorf("%s is mounted %s", point, access)
			}
		}
		if len(own) != len(want) {
			t.Errorf("outside of the container's root are %v", own)
		}
		entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/root", wasm.Pid()))
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, entry := range entries {
			names = append(names, entry.Name())
		}
		if !slices.Equal(names, []string{"module", "rootfs", "worker"}) {
			t.Errorf("its root holds %q", names)
		}
	})
}

// The worker holds its three streams, the container's root, the module and the descriptors that its engine
// waits on. It has no socket, no file of the host, and nothing that containerd or the daemon had open. It does
// not inherit the daemon's environment.
func TestInsideDescriptorsAndEnvironment(t *testing.T) {
	eachVersionWithTasks(t, func(t *testing.T, node *testnode.Node) {
		wasm := asWasm.run(t, node, "loop", "looping\n")
		folder := fmt.Sprintf("/proc/%d/fd", wasm.Pid())
		entries, err := os.ReadDir(folder)
		if err != nil {
			t.Fatal(err)
		}
		allowed := []string{"anon_inode:[eventpoll]", "anon_inode:[eventfd]", "/rootfs", "/module"}
		streams := 0
		for _, entry := range entries {
			target, err := os.Readlink(filepath.Join(folder, entry.Name()))
			if err != nil {
				t.Fatal(err)
			}
			if slices.Contains([]string{"0", "1", "2"}, entry.Name()) {
				streams++
				continue
			}
			if !slices.Contains(allowed, target) {
				t.Errorf("descriptor %s is %s", entry.Name(), target)
			}
		}
		if streams != 3 {
			t.Errorf("%d standard streams are open", streams)
		}
		for entry := range strings.SplitSeq(strings.Trim(wasm.proc("environ"), "\x00"), "\x00") {
			if name, _, _ := strings.Cut(entry, "="); name == "PATH" || name == "TESTNODE" || name == "NAMESPACE" {
				t.Errorf("the worker's environment holds %q", entry)
			}
		}
		if got, want := wasm.proc("cmdline"), "/app.wasm\x00loop\x00"; got != want {
			t.Errorf("the process calls itself %q, want %q", got, want)
		}
	})
}

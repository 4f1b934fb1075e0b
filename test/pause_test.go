package test

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/wasmshim/containerd-shim-wasm/internal/testnode"
)

// A pod of Wasm containers has only one shim, ours, which also launches its pause container.
func TestWasmPodNeedsNoStockShim(t *testing.T) {
	eachVersionWithPods(t, func(t *testing.T, node *testnode.Node) {
		p := runPod(t, node, ourHandler, nil)
		p.ours()
		stays := p.run(asWasm, "sleep", "sleeping")
		hello := p.add(asWasm, "hello", nil)
		hello.start()
		hello.expectExit(0)
		hello.await("hello from C")
		hello.remove()
		stays.remove()
		p.expectStockShim(false)
	})
}

// podKinds are settings that a pod may have for its pause container.
var podKinds = map[string]func(*criapi.PodSandboxConfig){
	"plain": nil,
	"host network": func(c *criapi.PodSandboxConfig) {
		c.Linux.SecurityContext.NamespaceOptions.Network = criapi.NamespaceMode_NODE
		c.Hostname = "" // the kubelet sets none
	},
	"host processes and IPC": func(c *criapi.PodSandboxConfig) {
		c.Linux.SecurityContext.NamespaceOptions.Pid = criapi.NamespaceMode_NODE
		c.Linux.SecurityContext.NamespaceOptions.Ipc = criapi.NamespaceMode_NODE
	},
	"shared processes": func(c *criapi.PodSandboxConfig) {
		c.Linux.SecurityContext.NamespaceOptions.Pid = criapi.NamespaceMode_POD
	},
	"user": func(c *criapi.PodSandboxConfig) {
		s := c.Linux.SecurityContext
		s.RunAsUser, s.RunAsGroup, s.SupplementalGroups = &criapi.Int64Value{Value: 1000}, &criapi.Int64Value{Value: 2000}, []int64{3000, 3001}
	},
	"privileged": func(c *criapi.PodSandboxConfig) {
		c.Linux.SecurityContext.Privileged, c.Linux.SecurityContext.Seccomp = true, nil
	},
	"sysctls": func(c *criapi.PodSandboxConfig) {
		c.Linux.Sysctls = map[string]string{"kernel.shm_rmid_forced": "1", "net.ipv4.ip_local_port_range": "2000 3000"}
	},
	"resources": func(c *criapi.PodSandboxConfig) {
		c.Linux.Resources = &criapi.LinuxContainerResources{CpuShares: 512, MemoryLimitInBytes: 64 << 20}
	},
}

// A pause container that our shim launches looks to the kernel like one of runc's, whatever the pod's settings.
func TestPodPauseIsAsStock(t *testing.T) {
	eachVersionWithPods(t, func(t *testing.T, node *testnode.Node) {
		for kind, change := range podKinds {
			t.Run(kind, func(t *testing.T) {
				ours, stock := runPod(t, node, ourHandler, change), runPod(t, node, stockHandler, change)
				ours.expectStockShim(false)
				got, want := ours.portrait(), stock.portrait()
				for _, name := range slices.Sorted(maps.Keys(want)) {
					if got[name] != want[name] {
						t.Errorf("%s is\n%s\nunder runc\n%s", name, got[name], want[name])
					}
				}
			})
		}
	})
}

// withoutLibcs removes signals 32 and 33 from a set. make(1) leaves these internal signals of glibc ignored,
// and runc passes on the ignored signals that containerd was started with.
func withoutLibcs(t testing.TB, set string) string {
	t.Helper()
	bits, err := strconv.ParseUint(set, 16, 64)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%016x", bits&^(3<<31))
}

// portrait returns what the kernel shows of a pod's pause process, with the pod's own names replaced.
func (p *pod) portrait() map[string]string {
	p.t.Helper()
	pid := p.pid()
	p.awaitHandlers(pid)
	read := func(name string) string {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", pid, name))
		if err != nil {
			p.t.Fatal(err)
		}
		return strings.ReplaceAll(strings.ReplaceAll(string(text), p.id, "ID"), p.config.Metadata.Name, "NAME")
	}
	link := func(name string) string {
		target, err := os.Readlink(fmt.Sprintf("/proc/%d/%s", pid, name))
		if err != nil {
			p.t.Fatal(err)
		}
		return target
	}
	seen := map[string]string{
		"arguments": read("cmdline"), "environment": read("environ"), "cgroups": read("cgroup"), "OOM score": read("oom_score_adj"),
		"limits": read("limits"), "mounts": mountTable(read("mountinfo")), "program": link("exe"), "directory": link("cwd"), "root": link("root"),
	}
	for line := range strings.Lines(read("status")) {
		name, value, _ := strings.Cut(line, ":")
		if slices.Contains(append(credentials, "Name", "NStgid", "NSpgid", "NSsid", "Threads", "SigPnd", "ShdPnd", "SigBlk", "SigIgn", "SigCgt"), name) {
			seen[name] = strings.Join(strings.Fields(strings.ReplaceAll(value, fmt.Sprint(pid), "PID")), " ")
		}
	}
	seen["SigIgn"] = withoutLibcs(p.t, seen["SigIgn"])
	for _, name := range []string{"cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts"} {
		seen["namespace "+name] = p.whoseNamespace(link("ns/"+name), name)
	}
	for _, fd := range p.list(fmt.Sprintf("/proc/%d/fd", pid)) {
		seen["descriptors"] += fd + " " + link("fd/"+fd) + "\n"
	}
	seen["files"] = strings.Join(p.list(fmt.Sprintf("/proc/%d/root", pid)), " ")
	return seen
}

// awaitHandlers returns when the pause program has set up its signal handlers; its start is then complete.
func (p *pod) awaitHandlers(pid int) {
	p.t.Helper()
	waitFor(p.t, func() bool {
		status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		return err == nil && strings.Contains(string(status), "\nSigCgt:\t0000000000014002\n")
	}, "the signal handlers of process %d", pid)
}

func (p *pod) list(dir string) []string {
	p.t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		p.t.Fatal(err)
	}
	var names []string
	for _, entry := range entries {
		names = append(names, entry.Name())
	}
	return names
}

func (p *pod) whoseNamespace(namespace, kind string) string {
	p.t.Helper()
	host, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/%s", p.node.PID(), kind))
	if err != nil {
		p.t.Fatal(err)
	}
	if host == namespace {
		return "containerd's"
	}
	return "its own"
}

// mountTable returns the mount points with their types and options. It omits /proc and all mounts below it: our
// /proc is empty.
func mountTable(mountinfo string) string {
	var table []string
	for line := range strings.Lines(mountinfo) {
		// proc_pid_mountinfo(5): the mount point is the fifth field. Its options and its peer groups follow.
		// After a dash come the type and the options of the file system.
		mount, system, _ := strings.Cut(line, " - ")
		f, kind := strings.Fields(mount), strings.Fields(system)[0]
		if f[4] != "/proc" && !strings.HasPrefix(f[4], "/proc/") {
			table = append(table, strings.Join(append(f[4:6:6], kind), " "))
		}
	}
	slices.Sort(table)
	return strings.Join(table, "\n")
}

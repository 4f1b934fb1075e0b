package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/pkg/namespaces"
	corev1 "k8s.io/api/core/v1"
)

// hostPID returns the process id of a container that runs, as this machine sees it.
func hostPID(t testing.TB, pod *corev1.Pod, container string) int {
	t.Helper()
	status := containerStatus(t, pod, container)
	_, id, _ := strings.Cut(status.ContainerID, "://")
	c, err := cluster.Containerd()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	ctx := namespaces.WithNamespace(t.Context(), "k8s.io")
	loaded, err := c.LoadContainer(ctx, id)
	if err != nil {
		t.Fatal(err)
	}
	task, err := loaded.Task(ctx, nil)
	if err != nil {
		t.Fatal(err)
	}
	pid, err := cluster.HostPID(int(task.Pid()))
	if err != nil || pid == 0 {
		t.Fatalf("container %s has no process %d on the node: %v", container, task.Pid(), err)
	}
	return pid
}

// processStatus returns the named fields of /proc/PID/status (proc_pid_status(5)).
func processStatus(t testing.TB, pid int, names ...string) map[string]string {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	fields := map[string]string{}
	for line := range strings.Lines(string(text)) {
		name, value, _ := strings.Cut(line, ":")
		for _, wanted := range names {
			if name == wanted {
				fields[name] = strings.Join(strings.Fields(value), " ")
			}
		}
	}
	return fields
}

// cgroup returns the folder of the cgroup that a process is in, for a controller: the unified hierarchy's or one of
// cgroup v1.
func cgroup(t testing.TB, pid int, controller string) string {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		// cgroups(7): hierarchy:controllers:path
		fields := strings.SplitN(strings.TrimSpace(line), ":", 3)
		for of := range strings.SplitSeq(fields[1], ",") {
			if of == controller {
				return filepath.Join("/sys/fs/cgroup", controller, fields[2])
			}
		}
	}
	_, path, _ := strings.Cut(string(text), "0::")
	path, _, _ = strings.Cut(path, "\n")
	return filepath.Join("/sys/fs/cgroup", path)
}

// limits are what a container may use, read from its cgroup in the terms of cgroup v1.
type limits struct {
	memory string // bytes
	quota  string // µs of CPU in 100 ms
}

func readLimits(t testing.TB, pid int) limits {
	t.Helper()
	memory, cpu := cgroup(t, pid, "memory"), cgroup(t, pid, "cpu")
	if _, err := os.Stat(filepath.Join(cpu, "cpu.max")); err == nil { // cgroup v2
		quota, _, _ := strings.Cut(get(t, cpu, "cpu.max"), " ")
		return limits{memory: strings.TrimSpace(get(t, memory, "memory.max")), quota: quota}
	}
	return limits{
		memory: strings.TrimSpace(get(t, memory, "memory.limit_in_bytes")),
		quota:  strings.TrimSpace(get(t, cpu, "cpu.cfs_quota_us")),
	}
}

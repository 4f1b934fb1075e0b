package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	corev1 "k8s.io/api/core/v1"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// criClient speaks to the node's containerd as the kubelet does.
func criClient(t testing.TB) cri.RuntimeServiceClient {
	t.Helper()
	address := "unix://" + cluster.OnNode("/run/containerd/containerd.sock")
	connection, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := connection.Close(); err != nil {
			t.Error(err)
		}
	})
	return cri.NewRuntimeServiceClient(connection)
}

func containerID(t testing.TB, pod *corev1.Pod, container string) string {
	t.Helper()
	_, id, _ := strings.Cut(containerStatus(t, pod, container).ContainerID, "://")
	return id
}

// hostPID returns the process id of a running container, in the machine's pid namespace.
func hostPID(t testing.TB, pod *corev1.Pod, container string) int {
	t.Helper()
	status, err := criClient(t).ContainerStatus(t.Context(), &cri.ContainerStatusRequest{ContainerId: containerID(t, pod, container), Verbose: true})
	if err != nil {
		t.Fatal(err)
	}
	var info struct{ PID int }
	if err := json.Unmarshal([]byte(status.Info["info"]), &info); err != nil {
		t.Fatal(err)
	}
	pid, err := cluster.HostPID(info.PID)
	if err != nil || pid == 0 {
		t.Fatalf("container %s has no process %d on the node: %v", container, info.PID, err)
	}
	return pid
}

// shimPIDs returns the process ids of a pod's shims, in the machine's pid namespace.
func shimPIDs(t testing.TB, pod *corev1.Pod) []int {
	t.Helper()
	list, err := criClient(t).ListPodSandbox(t.Context(), &cri.ListPodSandboxRequest{Filter: &cri.PodSandboxFilter{
		LabelSelector: map[string]string{"io.kubernetes.pod.uid": string(pod.UID)},
	}})
	if err != nil || len(list.Items) != 1 {
		t.Fatalf("the pod has the sandboxes %v, %v", list.GetItems(), err)
	}
	pids, err := cluster.ShimPIDs(list.Items[0].Id)
	if err != nil || len(pids) == 0 {
		t.Fatalf("sandbox %s has the shims %v, %v", list.Items[0].Id, pids, err)
	}
	return pids
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

// cgroup returns the folder of a process's cgroup for a controller, in the unified hierarchy or in cgroup v1's.
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

// limits are the limits of a container, read from its cgroup in the units of cgroup v1.
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

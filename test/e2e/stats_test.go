package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"regexp"
	"strconv"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// eventually polls a condition that sends no notification. If it never holds, the test fails with the last reason.
func eventually(t testing.TB, what string, holds func(ctx context.Context) error) {
	t.Helper()
	var last error
	err := wait.PollUntilContextTimeout(t.Context(), 200*time.Millisecond, within, true, func(ctx context.Context) (bool, error) {
		last = holds(ctx)
		return last == nil, nil
	})
	if err != nil {
		t.Fatalf("waiting until %s: %v", what, last)
	}
}

// ofNode gets a page of the kubelet through the API server.
func ofNode(ctx context.Context, node, path string) ([]byte, error) {
	return kube.typed.CoreV1().RESTClient().Get().AbsPath("/api/v1/nodes", node, "proxy", path).DoRaw(ctx)
}

// A guest keeps memory and burns CPU. Everything that measures containers must show both.
func TestStatistics(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	both(t, "seen", func(t *testing.T, f flavour) {
		pod := f.pod(t, "grow", "16", ",", "write", "/v/grown", "yes", ",", "await", "/v/never")
		mountEmptyDir(pod, "/v")
		wroteFile(&pod.Spec.Containers[0], f, "/v/grown")
		started := s.start(t, pod)
		defer s.end(t, started)
		client, id := criClient(t), containerID(t, started, "main")
		eventually(t, "CRI tells its usage", func(ctx context.Context) error { return criStats(ctx, client, id) })
		eventually(t, "the kubelet's summary tells its usage", func(ctx context.Context) error { return summaryStats(ctx, started) })
		eventually(t, "cAdvisor's metrics tell its usage", func(ctx context.Context) error { return cadvisorStats(ctx, started) })
	})
}

// usage is the least that the container must have used, given the probe's arguments.
func usage(cpu uint64, memory uint64) error {
	if cpu == 0 || memory < 16<<20 {
		return fmt.Errorf("it has used %d ns of CPU and uses %d bytes", cpu, memory)
	}
	return nil
}

func criStats(ctx context.Context, client cri.RuntimeServiceClient, id string) error {
	answer, err := client.ListContainerStats(ctx, &cri.ListContainerStatsRequest{Filter: &cri.ContainerStatsFilter{Id: id}})
	if err != nil {
		return err
	}
	if len(answer.Stats) != 1 || answer.Stats[0].Cpu == nil || answer.Stats[0].Memory == nil {
		return fmt.Errorf("it tells %v", answer.Stats)
	}
	stats := answer.Stats[0]
	return usage(stats.Cpu.UsageCoreNanoSeconds.GetValue(), stats.Memory.WorkingSetBytes.GetValue())
}

func summaryStats(ctx context.Context, pod *corev1.Pod) error {
	text, err := ofNode(ctx, pod.Spec.NodeName, "stats/summary")
	if err != nil {
		return err
	}
	type used struct {
		CPU    struct{ UsageCoreNanoSeconds uint64 }
		Memory struct{ WorkingSetBytes uint64 }
	}
	var summary struct {
		Pods []struct {
			used
			PodRef     struct{ UID string }
			Containers []struct {
				used
				Name string
			}
		}
	}
	if err := json.Unmarshal(text, &summary); err != nil {
		return err
	}
	for _, p := range summary.Pods {
		if p.PodRef.UID != string(pod.UID) {
			continue
		}
		for _, c := range p.Containers {
			if err := usage(c.CPU.UsageCoreNanoSeconds, c.Memory.WorkingSetBytes); err != nil {
				return fmt.Errorf("container %s: %w", c.Name, err)
			}
		}
		if len(p.Containers) != 1 {
			return fmt.Errorf("it tells of %d containers", len(p.Containers))
		}
		return usage(p.CPU.UsageCoreNanoSeconds, p.Memory.WorkingSetBytes)
	}
	return fmt.Errorf("it does not tell of the pod")
}

func cadvisorStats(ctx context.Context, pod *corev1.Pod) error {
	text, err := ofNode(ctx, pod.Spec.NodeName, "metrics/cadvisor")
	if err != nil {
		return err
	}
	metric := func(name string) (float64, error) {
		line := regexp.MustCompile(name + `\{container="main",[^}]*pod="` + pod.Name + `"\} (\S+)`).FindSubmatch(text)
		if line == nil {
			return 0, fmt.Errorf("there is no %s of it", name)
		}
		return strconv.ParseFloat(string(line[1]), 64)
	}
	cpu, err := metric("container_cpu_usage_seconds_total")
	if err != nil {
		return err
	}
	memory, err := metric("container_memory_working_set_bytes")
	if err != nil {
		return err
	}
	return usage(uint64(cpu*1e9), uint64(memory))
}

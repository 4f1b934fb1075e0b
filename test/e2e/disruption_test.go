package e2e

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/wasmshim/containerd-shim-wasm/internal/testcluster"
)

// Tests of this file disturb all pods of the node: they do not run in parallel with others.

// crew are pods of every kind that live through a disruption. Each waits for a file on the node.
type crew struct {
	here string // the folder of the files
	pods map[string]*corev1.Pod
}

// crewOf starts the pods.
func crewOf(t *testing.T, s *space, pods map[string]*corev1.Pod) *crew {
	t.Helper()
	there, here := onNode(t)
	c := &crew{here: here, pods: map[string]*corev1.Pod{}}
	for name, pod := range pods {
		pod.GenerateName += name + "-"
		mount(pod, corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: there}}, at("/h"))
		c.pods[name] = s.create(t, pod)
	}
	for name, pod := range c.pods {
		c.pods[name] = s.ready(t, pod.Name)
	}
	return c
}

// mixedCrew are pods whose containers all run the probe in the same way: Wasm ones, native ones, and both in one pod.
func mixedCrew(t *testing.T, s *space, args ...string) *crew {
	t.Helper()
	return crewOf(t, s, map[string]*corev1.Pod{
		"wasm": asWasm.pod(t, args...), "native": asNative.pod(t, args...), "mixed": pair(t, asWasm, asNative, args...),
	})
}

// pair is a pod of the Wasm class with the containers "main" and "other".
func pair(t *testing.T, main, other flavour, args ...string) *corev1.Pod {
	pod := main.pod(t, args...)
	pod.Spec.RuntimeClassName = asWasm.class
	pod.Spec.Containers = append(pod.Spec.Containers, other.container("other", args...))
	return pod
}

// ended checks how every container of the pods ends and what it prints.
func (c *crew) ended(t *testing.T, s *space, phase corev1.PodPhase, code int32, output string) {
	t.Helper()
	for name, pod := range c.pods {
		ended := s.ended(t, pod.Name)
		if ended.Status.Phase != phase {
			t.Errorf("the %s pod is %s, want %s", name, ended.Status.Phase, phase)
		}
		for _, container := range ended.Spec.Containers {
			status := containerStatus(t, ended, container.Name)
			if end := terminated(t, ended, container.Name); end.ExitCode != code || status.RestartCount != 0 {
				t.Errorf("container %s of the %s pod ended %s with %d after %d restarts, want %d", container.Name, name, end.Reason, end.ExitCode, status.RestartCount, code)
			}
			if got := s.logs(t, ended.Name, container.Name); got != output {
				t.Errorf("container %s of the %s pod printed %q, want %q", container.Name, name, got, output)
			}
		}
	}
}

// processesEnd waits until the containers' processes are gone. Nothing reports their end.
func processesEnd(t *testing.T, pids []int) {
	t.Helper()
	eventually(t, "the processes have ended", func(context.Context) error {
		for _, pid := range pids {
			if err := syscall.Kill(pid, 0); !errors.Is(err, syscall.ESRCH) {
				return fmt.Errorf("process %d is there: %v", pid, err)
			}
		}
		return nil
	})
}

func TestNodeRestarts(t *testing.T) {
	s := newSpace(t)
	for _, disruption := range []struct {
		name string
		part string
		down func(ctx context.Context, part string) error
	}{
		{"kubelet-restarted", testcluster.Kubelet, cluster.Terminate},
		{"kubelet-killed", testcluster.Kubelet, cluster.Kill9},
		{"containerd-restarted", testcluster.Containerd, cluster.Terminate},
		{"containerd-killed", testcluster.Containerd, cluster.Kill9},
	} {
		t.Run(disruption.name, func(t *testing.T) {
			after := mixedCrew(t, s, "say", "one", ",", "await", "/h/go", ",", "say", "two")
			// No native containers: the stock shim loses the exit code of one that ends while containerd is down.
			ends := []string{"say", "one", ",", "await", "/h/go", ",", "exit", "5"}
			during := crewOf(t, s, map[string]*corev1.Pod{"single": asWasm.pod(t, ends...), "pair": pair(t, asWasm, asWasm, ends...)})
			var pids []int
			for _, pod := range during.pods {
				for _, container := range pod.Spec.Containers {
					pids = append(pids, hostPID(t, pod, container.Name))
				}
			}
			if err := disruption.down(t.Context(), disruption.part); err != nil {
				t.Fatal(err)
			}
			put(t, "", during.here, "go")
			processesEnd(t, pids)
			if err := cluster.Start(t.Context(), disruption.part); err != nil {
				t.Fatal(err)
			}
			during.ended(t, s, corev1.PodFailed, 5, "one\n")
			if got := s.exec(t, after.pods["wasm"].Name, "main", asWasm.command("say", "here")...); got != (result{stdout: "here\n"}) {
				t.Errorf("an exec gives %+v", got)
			}
			put(t, "", after.here, "go")
			after.ended(t, s, corev1.PodSucceeded, 0, "one\ntwo\n")
		})
	}
}

// When the shims of a pod die, its containers die too, and Kubernetes sees that. Pods under runc alone are left out:
// their shim, when killed, leaves its socket and runc's state behind.
func TestShimKilled(t *testing.T) {
	s := newSpace(t)
	t.Run("never", func(t *testing.T) {
		args := []string{"say", "one", ",", "await", "/h/go"}
		crew := crewOf(t, s, map[string]*corev1.Pod{
			"wasm":  asWasm.pod(t, args...),
			"all":   pair(t, asWasm, asNative, args...),
			"ours":  pair(t, asWasm, asNative, args...),
			"stock": pair(t, asWasm, asNative, args...),
		})
		killShims(t, crew.pods["wasm"])
		killShims(t, crew.pods["all"])
		killShims(t, crew.pods["ours"], "containerd-shim-wasm-v1")
		killShims(t, crew.pods["stock"], "containerd-shim-runc-v2")
		// Nobody has seen their exit status: containerd reports 255 for that.
		crew.ended(t, s, corev1.PodFailed, 255, "one\n")
	})
	t.Run("always", func(t *testing.T) {
		pod := pair(t, asWasm, asNative, "sleep", "1000")
		pod.Spec.RestartPolicy = corev1.RestartPolicyAlways
		started := s.start(t, pod)
		killShims(t, started)
		await(t, s.name, started.Name, "runs again", func(p *corev1.Pod) bool {
			for _, container := range []string{"main", "other"} {
				status := findStatus(p, container)
				if status == nil || status.RestartCount == 0 || status.State.Running == nil {
					return false
				}
			}
			return true
		})
		s.end(t, started)
	})
}

// killShims kills the pod's shims that have one of the names, or all of them.
func killShims(t *testing.T, pod *corev1.Pod, names ...string) {
	t.Helper()
	var found []int
	for _, pid := range shimPIDs(t, pod) {
		command, _, _ := strings.Cut(get(t, fmt.Sprintf("/proc/%d/cmdline", pid)), "\x00")
		if len(names) == 0 || slices.Contains(names, filepath.Base(command)) {
			found = append(found, pid)
		}
	}
	if len(found) == 0 {
		t.Fatalf("pod %s has no shim %q", pod.Name, names)
	}
	// They are stopped first, so that none of them sees another one end.
	for _, signal := range []syscall.Signal{syscall.SIGSTOP, syscall.SIGKILL} {
		for _, pid := range found {
			if err := syscall.Kill(pid, signal); err != nil {
				t.Fatal(err)
			}
		}
	}
}

package e2e

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
)

// mix is a pod of two kinds of containers. All but the last mix are pods of the Wasm
// class.
type mix struct {
	name          string
	class         *string
	first, second flavour
}

var mixes = []mix{
	{"native-then-wasm", asWasm.class, asNative, asWasm},
	{"wasm-then-native", asWasm.class, asWasm, asNative},
	{"wasm-then-wasm", asWasm.class, asWasm, asWasm},
	{"native-then-native", asNative.class, asNative, asNative},
}

// pod returns a pod with one container, "main", of the second kind.
func (m mix) pod(t testing.TB, args ...string) *corev1.Pod {
	pod := m.second.pod(t, args...)
	pod.Spec.RuntimeClassName = m.class
	return pod
}

func each(t *testing.T, name string, test func(t *testing.T, m mix)) {
	t.Helper()
	for _, m := range mixes {
		t.Run(name+"/"+m.name, func(t *testing.T) {
			t.Parallel()
			test(t, m)
		})
	}
}

func TestMixedPods(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	each(t, "side-by-side", func(t *testing.T, m mix) {
		pod := m.pod(t, "await", "/v/there", "over there", ",", "write", "/v/back", "and back")
		pod.Spec.Containers = append(pod.Spec.Containers,
			m.first.container("other", "write", "/v/there", "over there", ",", "await", "/v/back", "and back", ",", "read", "/v/back"))
		mountEmptyDir(pod, "/v")
		ended := s.run(t, pod)
		if got := s.logs(t, ended.Name, "other"); ended.Status.Phase != corev1.PodSucceeded || got != "and back" {
			t.Errorf("the pod is %s and printed %q", ended.Status.Phase, got)
		}
	})
	each(t, "init", func(t *testing.T, m mix) {
		pod := m.pod(t, "read", "/v/of-init")
		pod.Spec.InitContainers = []corev1.Container{
			m.first.container("one", "write", "/v/of-init", "one "),
			m.second.container("two", "append", "/v/of-init", "two"),
		}
		mountEmptyDir(pod, "/v")
		s.succeeds(t, pod, "one two")
	})
	each(t, "init-fails", func(t *testing.T, m mix) {
		pod := m.pod(t, "say", "must not run")
		pod.Spec.InitContainers = []corev1.Container{m.first.container("init", "exit", "9")}
		ended := s.run(t, pod)
		if end := terminated(t, ended, "init"); end.ExitCode != 9 || ended.Status.Phase != corev1.PodFailed {
			t.Errorf("the pod is %s, its init container ended with %d", ended.Status.Phase, end.ExitCode)
		}
		if state := containerStatus(t, ended, "main").State; state.Waiting == nil {
			t.Errorf("its container ran: %+v", state)
		}
	})
	// A sidecar runs as long as the others and is ended after them.
	each(t, "sidecar", func(t *testing.T, m mix) {
		always := corev1.ContainerRestartPolicyAlways
		sidecar := m.first.container("sidecar", "write", "/v/ready", "yes", ",", "sleep", "1000")
		sidecar.RestartPolicy = &always
		sidecar.StartupProbe = &corev1.Probe{
			ProbeHandler:  corev1.ProbeHandler{Exec: &corev1.ExecAction{Command: m.first.command("read", "/v/ready")}},
			PeriodSeconds: 1, FailureThreshold: 60, TimeoutSeconds: 10,
		}
		pod := m.pod(t, "read", "/v/ready")
		pod.Spec.InitContainers = []corev1.Container{sidecar}
		mountEmptyDir(pod, "/v")
		ended := s.succeeds(t, pod, "yes")
		if end := terminated(t, ended, "sidecar"); end.ExitCode != 143 {
			t.Errorf("the sidecar ended with %d, want 143", end.ExitCode)
		}
	})
	// A container can send signals to the others, whatever their kind.
	each(t, "shared-processes", func(t *testing.T, m mix) {
		yes := true
		pod := m.pod(t, "write", "/v/runs", "", ",", "sleep", "1000")
		pod.Spec.ShareProcessNamespace = &yes
		other := m.first.container("other")
		other.Image = asNative.image
		// All but the pause container, which is the first process, and the sender itself.
		other.Command = []string{"sh", "-c", "until [ -e /v/runs ]; do sleep 0.1; done; kill -TERM -1"}
		pod.Spec.Containers = append(pod.Spec.Containers, other)
		mountEmptyDir(pod, "/v")
		ended := s.run(t, pod)
		if end := terminated(t, ended, "main"); end.ExitCode != 143 {
			t.Errorf("it ended with %d, want 143", end.ExitCode)
		}
	})
}

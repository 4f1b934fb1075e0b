package e2e

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

func amounts(cpu, memory string) corev1.ResourceList {
	return corev1.ResourceList{corev1.ResourceCPU: resource.MustParse(cpu), corev1.ResourceMemory: resource.MustParse(memory)}
}

func TestResources(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	both(t, "limits", func(t *testing.T, f flavour) {
		pod := f.pod(t, "sleep", "1000")
		pod.Spec.Containers[0].Resources = corev1.ResourceRequirements{Requests: amounts("100m", "32Mi"), Limits: amounts("250m", "64Mi")}
		started := s.start(t, pod)
		defer s.end(t, started)
		if got, want := readLimits(t, hostPID(t, started, "main")), (limits{memory: "67108864", quota: "25000"}); got != want {
			t.Errorf("its cgroup has %+v, want %+v", got, want)
		}
	})
	both(t, "resize", func(t *testing.T, f flavour) {
		pod := f.pod(t, "sleep", "1000")
		pod.Spec.Containers[0].Resources = corev1.ResourceRequirements{Requests: amounts("50m", "32Mi"), Limits: amounts("100m", "64Mi")}
		started := s.start(t, pod)
		defer s.end(t, started)
		patch := []byte(`{"spec":{"containers":[{"name":"main","resources":{"limits":{"cpu":"300m","memory":"96Mi"}}}]}}`)
		if _, err := kube.typed.CoreV1().Pods(s.name).Patch(t.Context(), started.Name, types.StrategicMergePatchType, patch, metav1.PatchOptions{}, "resize"); err != nil {
			t.Fatal(err)
		}
		resized := await(t, s.name, started.Name, "is resized", func(p *corev1.Pod) bool {
			status := findStatus(p, "main")
			return status != nil && status.Resources != nil && status.Resources.Limits.Memory().String() == "96Mi" && status.Resources.Limits.Cpu().String() == "300m"
		})
		if got, want := readLimits(t, hostPID(t, resized, "main")), (limits{memory: "100663296", quota: "30000"}); got != want {
			t.Errorf("its cgroup has %+v, want %+v", got, want)
		}
		if restarts := containerStatus(t, resized, "main").RestartCount; restarts != 0 {
			t.Errorf("it was restarted %d times", restarts)
		}
	})
	// Files in a container's memory file system count as the container's memory.
	both(t, "oom", func(t *testing.T, f flavour) {
		pod := f.pod(t, "fill", "/m/file")
		pod.Spec.Containers[0].Resources.Limits = amounts("1", "32Mi")
		mount(pod, corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{Medium: corev1.StorageMediumMemory}}, at("/m"))
		ended := s.run(t, pod)
		if end := terminated(t, ended, "main"); end.Reason != "OOMKilled" || end.ExitCode != 137 || ended.Status.Phase != corev1.PodFailed {
			t.Errorf("the pod is %s, it ended %s with %d", ended.Status.Phase, end.Reason, end.ExitCode)
		}
	})
	// If a guest asks for more memory than its limit, memory.grow fails.
	t.Run("memory-refused", func(t *testing.T) {
		t.Parallel()
		pod := asWasm.pod(t, "grow")
		pod.Spec.Containers[0].Resources.Limits = amounts("1", "64Mi")
		if end := terminated(t, s.run(t, pod), "main"); end.Reason != "Error" || end.ExitCode != 3 {
			t.Errorf("it ended %s with %d", end.Reason, end.ExitCode)
		}
	})
}

package e2e

import (
	"context"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"
	watchtools "k8s.io/client-go/tools/watch"
)

// flavour is one of the two ways to run the same pod: as Wasm, and natively under runc. The native run shows that the
// test's expectation is Kubernetes' behaviour.
type flavour struct {
	name    string
	image   string
	program string // the probe in the image
	class   *string

	root     string // the container's root file system as its first process sees it: a worker has its own root around it
	readOnly string // how the probe reads EROFS
}

var (
	runtimeClass = "wasm"

	asWasm   = flavour{name: "wasm", image: probeImage, program: "/app.wasm", class: &runtimeClass, root: "/rootfs", readOnly: "Read-only file system"}
	asNative = flavour{name: "native", image: nativeImage, program: "/app", readOnly: "Read-only file system"}
)

// both runs the test as Wasm and natively, at the same time.
func both(t *testing.T, name string, test func(t *testing.T, f flavour)) {
	t.Helper()
	for _, f := range []flavour{asWasm, asNative} {
		t.Run(name+"/"+f.name, func(t *testing.T) {
			t.Parallel()
			test(t, f)
		})
	}
}

// container returns a container that runs the probe with the arguments.
func (f flavour) container(name string, args ...string) corev1.Container {
	return corev1.Container{Name: name, Image: f.image, Args: args}
}

// command is the probe with arguments, for health probes, hooks and execs.
func (f flavour) command(args ...string) []string { return append([]string{f.program}, args...) }

// pod returns a pod of the test with one container, "main", that runs the probe once with the arguments.
func (f flavour) pod(t testing.TB, args ...string) *corev1.Pod {
	grace := int64(5)
	token := false
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{GenerateName: podName(t.Name())},
		Spec: corev1.PodSpec{
			RuntimeClassName:              f.class,
			RestartPolicy:                 corev1.RestartPolicyNever,
			TerminationGracePeriodSeconds: &grace,
			AutomountServiceAccountToken:  &token,
			Containers:                    []corev1.Container{f.container("main", args...)},
		},
	}
}

// podName makes the beginning of a pod's name from the subtest's name.
func podName(test string) string {
	_, below, found := strings.Cut(test, "/")
	if !found {
		below = test
	}
	return strings.TrimPrefix(spaceName(below), "t-")
}

// create creates the pod. If the test fails, it shows the pod's state.
func (s *space) create(t testing.TB, pod *corev1.Pod) *corev1.Pod {
	t.Helper()
	pod = create(t, s.name, pod)
	s.reported(t, metav1.ListOptions{FieldSelector: "metadata.name=" + pod.Name})
	return pod
}

// run creates the pod and waits until it has ended.
func (s *space) run(t testing.TB, pod *corev1.Pod) *corev1.Pod {
	t.Helper()
	return s.ended(t, s.create(t, pod).Name)
}

// start creates the pod and waits until all of its containers run and are ready.
func (s *space) start(t testing.TB, pod *corev1.Pod) *corev1.Pod {
	t.Helper()
	return s.ready(t, s.create(t, pod).Name)
}

func (s *space) ended(t testing.TB, pod string) *corev1.Pod {
	t.Helper()
	return await(t, s.name, pod, "has ended", func(p *corev1.Pod) bool {
		return p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed
	})
}

func (s *space) ready(t testing.TB, pod string) *corev1.Pod {
	t.Helper()
	return await(t, s.name, pod, "is ready", func(p *corev1.Pod) bool {
		for _, condition := range p.Status.Conditions {
			if condition.Type == corev1.PodReady && condition.Status == corev1.ConditionTrue {
				return true
			}
		}
		return false
	})
}

// succeeds runs the pod and checks that it succeeds and what "main" prints.
func (s *space) succeeds(t testing.TB, pod *corev1.Pod, want string) *corev1.Pod {
	t.Helper()
	pod = s.run(t, pod)
	if pod.Status.Phase != corev1.PodSucceeded {
		t.Errorf("the pod is %s", pod.Status.Phase)
	}
	if got := s.logs(t, pod.Name, "main"); got != want {
		t.Errorf("it printed %q, want %q", got, want)
	}
	return pod
}

// printed checks the lines that "main" has printed, in any order: standard output and standard error reach the log on
// different ways.
func (s *space) printed(t testing.TB, pod *corev1.Pod, want ...string) {
	t.Helper()
	got := strings.Split(strings.TrimSuffix(s.logs(t, pod.Name, "main"), "\n"), "\n")
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("it printed %q, want %q", got, want)
	}
}

// terminated returns how a container of an ended pod ended.
func terminated(t testing.TB, pod *corev1.Pod, container string) *corev1.ContainerStateTerminated {
	t.Helper()
	state := containerStatus(t, pod, container).State
	if state.Terminated == nil {
		t.Fatalf("container %s has not ended: %+v", container, state)
	}
	return state.Terminated
}

func containerStatus(t testing.TB, pod *corev1.Pod, container string) corev1.ContainerStatus {
	t.Helper()
	if found := findStatus(pod, container); found != nil {
		return *found
	}
	t.Fatalf("the pod has no status of container %s", container)
	return corev1.ContainerStatus{}
}

// findStatus returns nil as long as the pod's status has nothing about the container.
func findStatus(pod *corev1.Pod, container string) *corev1.ContainerStatus {
	for _, list := range [][]corev1.ContainerStatus{
		pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses, pod.Status.EphemeralContainerStatuses,
	} {
		for i := range list {
			if list[i].Name == container {
				return &list[i]
			}
		}
	}
	return nil
}

// end deletes a pod that would run for ever, so that it does not slow down later tests.
func (s *space) end(t testing.TB, pod *corev1.Pod) {
	t.Helper()
	if t.Failed() {
		return // the report shows the pod first; the pod is deleted with its namespace
	}
	now := int64(0)
	if err := kube.typed.CoreV1().Pods(s.name).Delete(t.Context(), pod.Name, metav1.DeleteOptions{GracePeriodSeconds: &now}); err != nil {
		t.Error(err)
	}
}

// awaitEvent waits until an event about the pod has the reason, and returns it.
func (s *space) awaitEvent(t testing.TB, pod, reason string) *corev1.Event {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), within)
	defer cancel()
	events := kube.typed.CoreV1().Events(s.name)
	only := fields.Set{"involvedObject.name": pod, "reason": reason}.String()
	list := &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, options metav1.ListOptions) (runtime.Object, error) {
			options.FieldSelector = only
			return events.List(ctx, options)
		},
		WatchFuncWithContext: func(ctx context.Context, options metav1.ListOptions) (watch.Interface, error) {
			options.FieldSelector = only
			return events.Watch(ctx, options)
		},
	}
	seen := func(event watch.Event) (bool, error) { return event.Type != watch.Deleted, nil }
	found, err := watchtools.UntilWithSync(ctx, list, &corev1.Event{}, nil, seen)
	if err != nil {
		t.Fatalf("waiting for an event %s of %s: %v", reason, pod, err)
	}
	return found.Object.(*corev1.Event)
}

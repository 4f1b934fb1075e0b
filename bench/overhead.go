package main

import (
	"context"
	"fmt"
	"slices"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/errdefs"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/wasmshim/containerd-shim-wasm/internal/testguest"
)

const sleeperImage = "example.com/bench/sleeper:1"

// overheadPods are kinds of pods whose own memory is measured: the memory of the processes other
// than the containers'. Argo's pods are of the second kind.
var overheadPods = []struct {
	name       string
	class      *string
	containers []string // their programs
}{
	{"wasm", new("wasm"), []string{"/app.wasm"}},
	{"wasm and native", new("wasm"), []string{"/app.wasm", "/app"}},
	{"native (runc)", nil, []string{"/app"}},
}

// measureOverhead measures the memory that a pod takes in addition to its containers: RuntimeClass's
// overhead.podFixed.
func (b *clusterBench) measureOverhead(ctx context.Context, n int) error {
	progress("memory of %d running pods of each kind", n)
	if err := b.importSleeper(ctx); err != nil {
		return err
	}
	fmt.Printf("\nprivate memory of a pod beside its containers (shims and pause), at %d running pods, MB\n", n)
	for i, kind := range overheadPods {
		var pods []*corev1.Pod
		for k := range n {
			pod, err := b.runSleeper(ctx, fmt.Sprintf("bench-overhead-%d-%d", i, k), kind.class, kind.containers)
			if err != nil {
				return err
			}
			defer b.pods.CoreV1().Pods(benchNamespace).Delete(context.WithoutCancel(ctx), pod.Name, metav1.DeleteOptions{GracePeriodSeconds: new(int64)})
			pods = append(pods, pod)
		}
		var sizes []float64
		for _, pod := range pods {
			size, err := b.overhead(ctx, pod)
			if err != nil {
				return err
			}
			sizes = append(sizes, size)
		}
		fmt.Printf("  %-20s median %6.2f   most %6.2f\n", kind.name, median(sizes), slices.Max(sizes))
	}
	return nil
}

// importSleeper imports an image with a Wasm and a native program that sleep.
func (b *clusterBench) importSleeper(ctx context.Context) error {
	opts := testguest.ImageOpts{Files: map[string]string{}}
	for path, guest := range map[string]string{"/app.wasm": "probe", "/app": "probe-native"} {
		file, err := testguest.File(guest)
		if err != nil {
			return err
		}
		opts.Files[path] = file
	}
	return b.cluster.ImportImage(ctx, sleeperImage, opts)
}

func (b *clusterBench) runSleeper(ctx context.Context, name string, class *string, programs []string) (*corev1.Pod, error) {
	api := b.pods.CoreV1().Pods(benchNamespace)
	watcher, err := api.Watch(ctx, metav1.ListOptions{FieldSelector: fields.OneTermEqualSelector("metadata.name", name).String()})
	if err != nil {
		return nil, err
	}
	defer watcher.Stop()
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: corev1.PodSpec{RuntimeClassName: class}}
	for i, program := range programs {
		pod.Spec.Containers = append(pod.Spec.Containers, corev1.Container{
			Name: fmt.Sprintf("c%d", i), Image: sleeperImage, ImagePullPolicy: corev1.PullNever, Command: []string{program, "sleep", "3600"},
		})
	}
	if _, err := api.Create(ctx, pod, metav1.CreateOptions{}); err != nil {
		return nil, err
	}
	for event := range watcher.ResultChan() {
		if event.Type == watch.Error {
			break
		}
		if pod, ok := event.Object.(*corev1.Pod); ok && isReady(pod) {
			return pod, nil
		}
	}
	return nil, fmt.Errorf("pod %s does not become ready: %w", name, ctx.Err())
}

func isReady(pod *corev1.Pod) bool {
	return slices.ContainsFunc(pod.Status.Conditions, func(c corev1.PodCondition) bool {
		return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue
	})
}

// overhead sums the private memory of a pod's shims and its pause process.
func (b *clusterBench) overhead(ctx context.Context, pod *corev1.Pod) (float64, error) {
	return b.podMemory(ctx, pod, func(container string) bool { return container == "" })
}

// podMemory sums the private memory of a pod's shims and of the first processes of the running containers that are
// counted. The name of the pause container is empty.
func (b *clusterBench) podMemory(ctx context.Context, pod *corev1.Pod, counts func(container string) bool) (float64, error) {
	ids, err := podContainers(ctx, b.tasks.containerd, pod)
	if err != nil {
		return 0, err
	}
	pids, err := b.cluster.ShimPIDs(ids[""])
	if err != nil {
		return 0, err
	}
	for name, id := range ids {
		if !counts(name) {
			continue
		}
		pid, err := b.runningPID(ctx, id)
		if err != nil {
			return 0, err
		}
		if pid != 0 {
			pids = append(pids, pid)
		}
	}
	sum := 0.0
	for _, pid := range pids {
		size, err := private(pid)
		if err != nil {
			return 0, err
		}
		sum += size
	}
	return sum, nil
}

// runningPID returns the process id on the machine of a container's first process, 0 if the container does not run.
func (b *clusterBench) runningPID(ctx context.Context, id string) (int, error) {
	ctx = namespaces.WithNamespace(ctx, "k8s.io")
	container, err := b.tasks.containerd.LoadContainer(ctx, id)
	if err != nil {
		return 0, err
	}
	task, err := container.Task(ctx, nil)
	if errdefs.IsNotFound(err) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	status, err := task.Status(ctx)
	if err != nil || status.Status != client.Running {
		return 0, err
	}
	return b.cluster.HostPID(int(task.Pid()))
}

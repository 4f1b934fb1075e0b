package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"

	"github.com/wasmshim/containerd-shim-wasm/internal/testcluster"
	"github.com/wasmshim/containerd-shim-wasm/internal/testguest"
)

// clusterBench measures on a whole Kubernetes node, including every wait that a user sees.
type clusterBench struct {
	cluster   *testcluster.Cluster
	pods      *kubernetes.Clientset
	workflows *dynamic.DynamicClient
	tasks     *taskTimes
}

// clusterContender is a kind of pod: a runtime class with an image for it.
type clusterContender struct {
	name, image, command string
	args                 []any
	class                *string
}

var clusterPair = []clusterContender{
	{name: "wasm", image: "example.com/bench/wasm:1", command: "/app.wasm", class: new("wasm")},
	{name: "runc", image: "example.com/bench/runc:1", command: "/app"},
}

// measureCluster brings up the cluster unless it runs already. A cluster that it brought up is taken
// down again.
func (p plan) measureCluster(ctx context.Context) (err error) {
	progress("bringing up a Kubernetes node")
	_, openErr := testcluster.Open()
	// With Argo's default of ten seconds, most of a small workflow's time is that wait.
	cluster, err := testcluster.Up(ctx, testcluster.Options{Requeue: p.requeue, EventedPLEG: p.eventedPLEG}, os.Stderr)
	if err != nil {
		return err
	}
	if openErr != nil {
		defer func() { err = errors.Join(err, testcluster.Down(context.WithoutCancel(ctx))) }()
	}
	b, err := newClusterBench(ctx, cluster)
	if err != nil {
		return err
	}
	defer b.tasks.close()
	if p.artifactsOnly {
		return b.measureArtifacts(ctx)
	}
	if err := b.measurePods(ctx, p.pods); err != nil {
		return err
	}
	if err := b.measureFanOut(ctx, p.fanOut, p.fanOuts); err != nil {
		return err
	}
	if err := b.measureSteps(ctx, p.pods); err != nil {
		return err
	}
	return b.measureOverhead(ctx, p.crowd/2)
}

func newClusterBench(ctx context.Context, cluster *testcluster.Cluster) (*clusterBench, error) {
	hello := map[string]string{"/app.wasm": "hello-c", "/app": "hello-native"}
	for _, c := range clusterPair {
		file, err := testguest.File(hello[c.command])
		if err != nil {
			return nil, err
		}
		image := testguest.ImageOpts{Files: map[string]string{c.command: file}, Entrypoint: []string{c.command}}
		if err := cluster.ImportImage(ctx, c.image, image); err != nil {
			return nil, err
		}
	}
	config := cluster.RESTConfig()
	config.QPS = -1
	pods, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, err
	}
	workflows, err := dynamic.NewForConfig(config)
	if err != nil {
		return nil, err
	}
	containerd, err := cluster.Containerd()
	if err != nil {
		return nil, err
	}
	return &clusterBench{cluster: cluster, pods: pods, workflows: workflows, tasks: recordTasks(ctx, containerd)}, nil
}

const benchNamespace = "default"

// podSpans are the parts of a pod's life as a user sees it. The kubelet looks for containers that have
// ended once a second, which is most of "reporting".
var podSpans = []string{"scheduling", "sandbox", "container", "running", "reporting", total}

func (b *clusterBench) measurePods(ctx context.Context, n int) error {
	progress("%d pods of each runtime on the cluster, one at a time", n)
	times := []samples{{}, {}}
	for i := range n + 1 {
		for k, c := range clusterPair {
			into := times[k]
			if i == 0 {
				into = samples{} // the first pod compiles the module and fills caches
			}
			if err := b.pod(ctx, c, fmt.Sprintf("bench-%s-%d", c.name, i), into); err != nil {
				return fmt.Errorf("%s: %w", c.name, err)
			}
		}
	}
	title := fmt.Sprintf("Kubernetes pods, from create to Succeeded, one at a time, n=%d each, alternating", n)
	printPhases(os.Stdout, title, podSpans, times[0], times[1])
	printShares(os.Stdout, podSpans, times[0], times[1])
	printGoal(os.Stdout, "pod, wasm/runc, p50", times[0].quantile(total, 0.5)/times[1].quantile(total, 0.5), "<", 1, "")
	return nil
}

// pod runs one pod and records how long each part of its life took.
func (b *clusterBench) pod(ctx context.Context, c clusterContender, name string, times samples) error {
	api := b.pods.CoreV1().Pods(benchNamespace)
	watcher, err := api.Watch(ctx, metav1.ListOptions{FieldSelector: fields.OneTermEqualSelector("metadata.name", name).String()})
	if err != nil {
		return err
	}
	defer watcher.Stop()
	created := time.Now()
	_, err = api.Create(ctx, &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: corev1.PodSpec{
			RuntimeClassName: c.class, RestartPolicy: corev1.RestartPolicyNever,
			Containers: []corev1.Container{{Name: "main", Image: c.image, ImagePullPolicy: corev1.PullNever}},
		},
	}, metav1.CreateOptions{})
	if err != nil {
		return err
	}
	defer api.Delete(context.WithoutCancel(ctx), name, metav1.DeleteOptions{GracePeriodSeconds: new(int64)})
	var scheduled time.Time
	for event := range watcher.ResultChan() {
		pod, ok := event.Object.(*corev1.Pod)
		if !ok {
			return fmt.Errorf("watch pod %s: %v", name, event.Object)
		}
		if scheduled.IsZero() && pod.Spec.NodeName != "" {
			scheduled = time.Now()
		}
		switch pod.Status.Phase {
		case corev1.PodFailed:
			return fmt.Errorf("pod %s failed: %+v", name, pod.Status)
		case corev1.PodSucceeded:
			return b.note(ctx, pod, created, scheduled, time.Now(), times)
		}
	}
	return fmt.Errorf("pod %s: the watch ended: %w", name, ctx.Err())
}

func (b *clusterBench) note(ctx context.Context, pod *corev1.Pod, created, scheduled, succeeded time.Time, times samples) error {
	tasks, err := b.tasks.ofPod(ctx, pod)
	if err != nil {
		return err
	}
	pause, main := tasks[""], tasks["main"]
	if pause.started.IsZero() || main.started.IsZero() || main.ended.IsZero() {
		return fmt.Errorf("containerd told too little of pod %s: %+v", pod.Name, tasks)
	}
	for i, at := range []time.Time{scheduled, pause.started, main.started, main.ended, succeeded} {
		times.add(podSpans[i], at.Sub([]time.Time{created, scheduled, pause.started, main.started, main.ended}[i]))
	}
	times.add(total, succeeded.Sub(created))
	return nil
}

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/wasmshim/containerd-shim-wasm/internal/testcluster"
)

// measureSteps measures the pods of workflows with a single step, one at a time: how long they take, and the memory
// of a pod whose step runs.
func (b *clusterBench) measureSteps(ctx context.Context, n int) error {
	progress("%d workflows of one step with each runtime, one at a time", n)
	if err := b.importSleeper(ctx); err != nil {
		return err
	}
	times, memory := []samples{{}, {}}, [][]float64{{}, {}}
	for i := range n + 1 {
		for k, c := range clusterPair {
			into := times[k]
			if i == 0 {
				into = samples{} // the first one fills caches
			}
			err := b.step(ctx, fanOutWorkflow(c, 1), 1, corev1.PodSucceeded, func(pod *corev1.Pod, took time.Duration) error {
				into.add(total, took)
				return nil
			})
			if err != nil {
				return fmt.Errorf("%s: %w", c.name, err)
			}
		}
	}
	for k, c := range clusterPair {
		c.image, c.args = sleeperImage, []any{"sleep", "3600"}
		err := b.step(ctx, fanOutWorkflow(c, crowdedPods), crowdedPods, corev1.PodRunning, func(pod *corev1.Pod, _ time.Duration) error {
			size, err := b.podMemory(ctx, pod, func(string) bool { return true })
			memory[k] = append(memory[k], size)
			return err
		})
		if err != nil {
			return fmt.Errorf("%s: %w", c.name, err)
		}
	}
	title := fmt.Sprintf("pods of a workflow's step, from create to Succeeded, one at a time, n=%d each, alternating", n)
	printPhases(os.Stdout, title, []string{total}, times[0], times[1])
	printGoal(os.Stdout, "a step's pod, wasm/runc, p50", times[0].quantile(total, 0.5)/times[1].quantile(total, 0.5), "≤", 0.6, "")
	ours, theirs := median(memory[0]), median(memory[1])
	fmt.Printf("\nprivate memory of a whole pod whose step runs (shims, pause, wait and main), MB, median of %d that run at once\n  wasm %.2f   runc %.2f\n", len(memory[0]), ours, theirs)
	printGoal(os.Stdout, "memory of a running step's pod, wasm/runc", ours/theirs, "≤", 0.4, "")
	return nil
}

// crowdedPods is the number of pods that run while their memory is measured. In a pod alone on its node, the pages of
// programs that pods share would count as private.
const crowdedPods = 10

// step runs a workflow with a number of pods, reports each when all are in the phase with all their containers, and
// how long that took since the first was created, and removes the workflow.
func (b *clusterBench) step(ctx context.Context, workflow *unstructured.Unstructured, count int, phase corev1.PodPhase, report func(*corev1.Pod, time.Duration) error) (err error) {
	namespace := testcluster.Argo("4.0").Workflows
	created, err := b.workflows.Resource(workflowResource).Namespace(namespace).Create(ctx, workflow, metav1.CreateOptions{})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.remove(context.WithoutCancel(ctx), namespace, created.GetName())) }()
	watcher, err := b.pods.CoreV1().Pods(namespace).Watch(ctx, podsOf(created.GetName()))
	if err != nil {
		return err
	}
	defer watcher.Stop()
	var began time.Time
	there := map[string]*corev1.Pod{}
	for event := range watcher.ResultChan() {
		pod, ok := event.Object.(*corev1.Pod)
		if !ok {
			return fmt.Errorf("watch the pods of workflow %s: %v", created.GetName(), event.Object)
		}
		if began.IsZero() {
			began = time.Now()
		}
		switch {
		case pod.Status.Phase == phase && (phase != corev1.PodRunning || isReady(pod)):
			there[pod.Name] = pod
		case pod.Status.Phase == corev1.PodFailed || pod.Status.Phase == corev1.PodSucceeded:
			return fmt.Errorf("pod %s is %s: %+v", pod.Name, pod.Status.Phase, pod.Status)
		}
		if len(there) == count {
			took := time.Since(began)
			for _, pod := range there {
				err = errors.Join(err, report(pod, took))
			}
			return err
		}
	}
	return fmt.Errorf("the pods of workflow %s: the watch ended: %w", created.GetName(), ctx.Err())
}

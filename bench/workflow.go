package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/wasmshim/containerd-shim-wasm/internal/testcluster"
)

var workflowResource = schema.GroupVersionResource{Group: "argoproj.io", Version: "v1alpha1", Resource: "workflows"}

// taskSpans are the parts of the life of one of Argo's pods: its init container, the main one, and
// the wait container, which reports to Argo.
var taskSpans = []string{"scheduling", "sandbox", "init", "main", "wait", total}

// measureFanOut measures workflows that run n pods at once.
func (b *clusterBench) measureFanOut(ctx context.Context, n, rounds int) error {
	progress("%d workflows of %d pods at once with each runtime", rounds, n)
	namespace := testcluster.Argo("4.0").Workflows
	whole, parts, cpu := []samples{{}, {}}, []samples{{}, {}}, []cpuMeter{{}, {}}
	for i := range rounds + 1 {
		for k, c := range clusterPair {
			intoWhole, intoParts, meter := whole[k], parts[k], &cpu[k]
			if i == 0 {
				intoWhole, intoParts, meter = samples{}, samples{}, &cpuMeter{} // the first one fills caches and loads Argo's images
			}
			err := meter.during(b.cluster, n, func() error { return b.fanOut(ctx, namespace, c, n, intoWhole, intoParts) })
			if err != nil {
				return fmt.Errorf("%s: %w", c.name, err)
			}
		}
	}
	title := fmt.Sprintf("Argo workflow with %d tasks at once, from create to Succeeded, n=%d each, alternating", n, rounds)
	printPhases(os.Stdout, title, []string{total}, whole[0], whole[1])
	printGoal(os.Stdout, "tasks per minute, wasm/runc, p50", whole[1].quantile(total, 0.5)/whole[0].quantile(total, 0.5), "≥", 1.8, "")
	printPhases(os.Stdout, "its pods, from create to the end of their last container", taskSpans, parts[0], parts[1])
	printShares(os.Stdout, taskSpans, parts[0], parts[1])
	printCPU(os.Stdout, &cpu[0], &cpu[1])
	return nil
}

// fanOut runs a workflow, records its times and removes it.
func (b *clusterBench) fanOut(ctx context.Context, namespace string, c clusterContender, n int, whole, parts samples) (err error) {
	api := b.workflows.Resource(workflowResource).Namespace(namespace)
	created := time.Now()
	workflow, err := api.Create(ctx, fanOutWorkflow(c, n), metav1.CreateOptions{})
	if err != nil {
		return err
	}
	name := workflow.GetName()
	defer func() { err = errors.Join(err, b.remove(context.WithoutCancel(ctx), namespace, name)) }()
	watcher, err := api.Watch(ctx, metav1.ListOptions{
		FieldSelector: fields.OneTermEqualSelector("metadata.name", name).String(), ResourceVersion: workflow.GetResourceVersion(),
	})
	if err != nil {
		return err
	}
	defer watcher.Stop()
	for event := range watcher.ResultChan() {
		workflow, ok := event.Object.(*unstructured.Unstructured)
		if !ok {
			return fmt.Errorf("watch workflow %s: %v", name, event.Object)
		}
		phase, _, _ := unstructured.NestedString(workflow.Object, "status", "phase")
		switch phase {
		case "Failed", "Error":
			message, _, _ := unstructured.NestedString(workflow.Object, "status", "message")
			return fmt.Errorf("workflow %s ended as %s: %s", name, phase, message)
		case "Succeeded":
			whole.add(total, time.Since(created))
			return b.noteTasks(ctx, namespace, name, parts)
		}
	}
	return fmt.Errorf("workflow %s: the watch ended: %w", name, ctx.Err())
}

// noteTasks records how long the parts of a workflow's pods took. Kubernetes reports the time of
// scheduling in whole seconds; containerd's times are exact.
func (b *clusterBench) noteTasks(ctx context.Context, namespace, workflow string, parts samples) error {
	pods, err := b.pods.CoreV1().Pods(namespace).List(ctx, podsOf(workflow))
	if err != nil {
		return err
	}
	for _, pod := range pods.Items {
		tasks, err := b.tasks.ofPod(ctx, &pod)
		if err != nil {
			return err
		}
		pause, first, main, wait := tasks[""], tasks["init"], tasks["main"], tasks["wait"]
		if pause.started.IsZero() || first.ended.IsZero() || main.ended.IsZero() || wait.ended.IsZero() {
			return fmt.Errorf("containerd told too little of pod %s: %+v", pod.Name, tasks)
		}
		created, scheduled := pod.CreationTimestamp.Time, scheduledAt(pod)
		parts.add("scheduling", scheduled.Sub(created))
		parts.add("sandbox", pause.started.Sub(scheduled))
		parts.add("init", first.ended.Sub(pause.started))
		parts.add("main", main.ended.Sub(first.ended))
		parts.add("wait", wait.ended.Sub(main.ended))
		parts.add(total, wait.ended.Sub(created))
	}
	return nil
}

// podsOf selects the pods of a workflow.
func podsOf(workflow string) metav1.ListOptions {
	return metav1.ListOptions{LabelSelector: "workflows.argoproj.io/workflow=" + workflow}
}

func scheduledAt(pod corev1.Pod) time.Time {
	for _, condition := range pod.Status.Conditions {
		if condition.Type == corev1.PodScheduled {
			return condition.LastTransitionTime.Time
		}
	}
	return time.Time{}
}

func fanOutWorkflow(c clusterContender, n int) *unstructured.Unstructured {
	template := map[string]any{
		"name":      "hello",
		"container": map[string]any{"image": c.image, "imagePullPolicy": "Never", "command": []any{c.command}, "args": c.args},
	}
	if c.class != nil {
		template["podSpecPatch"] = `{"runtimeClassName":"` + *c.class + `"}`
	}
	return &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow",
		"metadata": map[string]any{"generateName": "bench-" + c.name + "-"},
		"spec": map[string]any{
			"entrypoint": "all",
			"templates": []any{
				map[string]any{"name": "all", "steps": []any{[]any{
					map[string]any{"name": "hello", "template": "hello", "withSequence": map[string]any{"count": strconv.Itoa(n)}},
				}}},
				template,
			},
		},
	}}
}

package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// patch changes fields of the workflow, as Argo's command line does.
func (w workflow) patch(t testing.TB, fields map[string]any) {
	t.Helper()
	text, err := json.Marshal(fields)
	if err != nil {
		t.Fatal(err)
	}
	where, err := kube.resource(workflowKind, w.argo.name)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := where.Patch(t.Context(), w.GetName(), types.MergePatchType, text, metav1.PatchOptions{}); err != nil {
		t.Fatalf("patching workflow %s: %v", w.GetName(), err)
	}
}

// says waits until a node's main container has printed the text.
func (w workflow) says(t testing.TB, name, text string) workflow {
	t.Helper()
	w = w.until(t, "runs node "+name, func(w workflow) bool { return w.has(name, "Running") })
	pod := w.argo.pod(t, w, name).Name
	eventually(t, "the program of node "+name+" says "+text, func(ctx context.Context) error {
		log, err := w.argo.readLogs(ctx, pod, corev1.PodLogOptions{Container: "main"})
		if err == nil && !strings.Contains(log, text) {
			err = fmt.Errorf("it printed %q", log)
		}
		return err
	})
	return w
}

// A looping guest ends when somebody stops its workflow, and the exit handler runs.
const looping = `
entrypoint: main
onExit: handler
templates:
- name: main
  container: {image: $IMAGE, command: [$PROBE], args: [loop]}
- name: handler
  container: {image: $IMAGE, command: [$PROBE], args: [write, /tmp/status, "{{workflow.status}}"]}
  outputs: {parameters: [{name: status, valueFrom: {path: /tmp/status}}]}
`

// wasEnded checks that a workflow that was asked to end did not succeed, and that SIGTERM ended its guest. Argo may
// finish the workflow before its pod has ended; Argo 3.7 then sometimes takes the pod for deleted, and reports the
// failure as an error.
func (w workflow) wasEnded(t testing.TB) {
	t.Helper()
	if phase := w.phase(); phase != "Failed" && phase != "Error" {
		t.Errorf("workflow %s is %s", w.GetName(), phase)
	}
	pod := w.argo.pod(t, w, "").Name
	if end := terminated(t, w.argo.ended(t, pod), "main"); end.ExitCode != 143 {
		t.Errorf("the guest ended with %d", end.ExitCode)
	}
}

func TestWorkflowStop(t *testing.T) {
	eachArgo(t, func(t *testing.T, a *argo) {
		w := a.submit(t, asWasm.workflow(t, looping)).says(t, "", "looping")
		w.patch(t, map[string]any{"spec": map[string]any{"shutdown": "Stop"}})
		w = w.ended(t)
		w.wasEnded(t)
		equal(t, "what the exit handler was told", w.node(t, "onExit").is(t, "Succeeded", "0").parameter(t, "status"), "Failed")
	})
}

func TestWorkflowTerminate(t *testing.T) {
	eachArgo(t, func(t *testing.T, a *argo) {
		w := a.submit(t, asWasm.workflow(t, looping)).says(t, "", "looping")
		w.patch(t, map[string]any{"spec": map[string]any{"shutdown": "Terminate"}})
		w = w.ended(t)
		w.wasEnded(t)
		if _, ran := w.nodes(t)["onExit"]; ran {
			t.Error("the exit handler ran")
		}
	})
}

// The deadline passes once the guest loops: the start may have taken long.
func TestWorkflowDeadline(t *testing.T) {
	eachArgo(t, func(t *testing.T, a *argo) {
		w := a.submit(t, asWasm.workflow(t, looping)).says(t, "", "looping")
		w.patch(t, map[string]any{"spec": map[string]any{"activeDeadlineSeconds": 1}})
		w = w.ended(t)
		w.wasEnded(t)
		equal(t, "what the exit handler was told", w.node(t, "onExit").is(t, "Succeeded", "0").parameter(t, "status"), "Failed")
	})
}

// The deadline of a template is its pod's: the kubelet ends the pod, started or not.
func TestWorkflowTemplateDeadline(t *testing.T) {
	eachArgo(t, func(t *testing.T, a *argo) {
		w := a.run(t, asWasm.workflow(t, `
entrypoint: main
templates:
- name: main
  activeDeadlineSeconds: 10
  container: {image: $IMAGE, command: [$PROBE], args: [loop]}
`)).is(t, "Failed")
		if message := w.node(t, "").Message; !strings.Contains(message, "deadline") {
			t.Errorf("the node says %q", message)
		}
	})
}

func TestWorkflowSuspend(t *testing.T) {
	eachArgo(t, func(t *testing.T, a *argo) {
		w := a.submit(t, asWasm.workflow(t, `
entrypoint: main
suspend: true
templates:
- name: main
  steps:
  - - {name: a-while, template: a-while}
  - - {name: approve, template: approve}
  - - {name: after, template: say, arguments: {parameters: [{name: text, value: "{{steps.approve.outputs.parameters.answer}}"}]}}
- {name: a-while, suspend: {duration: "1"}}
- name: approve
  suspend: {}
  outputs: {parameters: [{name: answer, valueFrom: {supplied: {}}}]}
- name: say
  inputs: {parameters: [{name: text}]}
  container: {image: $IMAGE, command: [$PROBE], args: [write, /tmp/said, "{{inputs.parameters.text}}"]}
  outputs: {parameters: [{name: said, valueFrom: {path: /tmp/said}}]}
`))
		w.patch(t, map[string]any{"spec": map[string]any{"suspend": nil}})
		w = w.until(t, "waits for an answer", func(w workflow) bool { return w.has("[1].approve", "Running") })
		if pods := a.pods(t, w); len(pods) != 0 {
			t.Errorf("it has %d pods while it is suspended", len(pods))
		}
		// "argo node set" and "argo resume" do the same.
		w.patch(t, map[string]any{"status": map[string]any{"nodes": map[string]any{w.node(t, "[1].approve").ID: map[string]any{
			"phase": "Succeeded", "outputs": map[string]any{"parameters": []any{map[string]any{"name": "answer", "value": "granted"}}},
		}}}})
		w = w.ended(t).is(t, "Succeeded")
		equal(t, "what the step after got", w.node(t, "[2].after").parameter(t, "said"), "granted")
	})
}

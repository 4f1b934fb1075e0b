package e2e

import (
	"context"
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/yaml"

	"github.com/wasmshim/containerd-shim-wasm/internal/testcluster"
)

// workflowWithin bounds a workflow; on a busy machine it waits for others.
const workflowWithin = 10 * time.Minute

var workflowKind = schema.GroupVersionKind{Group: "argoproj.io", Version: "v1alpha1", Kind: "Workflow"}

// argo is one version of Argo in the cluster, with the namespace of its workflows.
type argo struct {
	version string
	space
	executor bool        // Argo's own executor runs in pods of the Wasm class
	compared *comparison // nil without -three-ways
}

func argoVersion(version string) *argo {
	return &argo{version: version, space: space{testcluster.Argo(version).Workflows}}
}

// eachArgo runs the test on every version of Argo, at the same time.
func eachArgo(t *testing.T, test func(t *testing.T, a *argo)) {
	t.Helper()
	t.Parallel()
	for _, version := range cluster.ArgoVersions() {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			if *threeWays {
				compareWays(t, version, test)
				return
			}
			test(t, argoVersion(version))
		})
	}
}

// workflowLabel is the label by which Argo marks the objects of a workflow.
const workflowLabel = "workflows.argoproj.io/workflow"

// workflow is a workflow as the API server keeps it.
type workflow struct {
	*anyObject
	argo *argo
}

// workflow returns the workflow of a specification in YAML, in which $IMAGE is the image that holds the probe and $PROBE
// the probe in it. All of its pods are of the flavour's class.
func (f flavour) workflow(t testing.TB, spec string) *anyObject {
	t.Helper()
	text := strings.NewReplacer("$IMAGE", f.image, "$PROBE", f.program).Replace(spec)
	object := &anyObject{Object: map[string]any{}}
	object.SetGroupVersionKind(workflowKind)
	object.SetGenerateName(spaceName(t.Name()))
	object.Object["spec"] = fromYAML(t, text).Object
	if f.class != nil {
		set(t, object, `{"runtimeClassName":"`+*f.class+`"}`, "spec", "podSpecPatch")
	}
	return object
}

// set sets a field of an object.
func set(t testing.TB, object *anyObject, value any, fields ...string) {
	t.Helper()
	if err := unstructured.SetNestedField(object.Object, value, fields...); err != nil {
		t.Fatal(err)
	}
}

// submit creates the workflow. The workflow is deleted at the test's end; if the test fails, its state is shown
// first.
func (a *argo) submit(t testing.TB, object *anyObject) workflow {
	t.Helper()
	if a.executor {
		set(t, object, "true", "spec", "podMetadata", "annotations", "wasm.shim/native-argoexec")
	}
	object = create(t, a.name, object)
	a.deleted(t, object)
	a.reported(t, metav1.ListOptions{LabelSelector: workflowLabel + "=" + object.GetName()})
	return workflow{object, a}
}

// deleted deletes an object at the test's end.
func (a *argo) deleted(t testing.TB, object *anyObject) {
	kind, name := object.GroupVersionKind(), object.GetName()
	t.Cleanup(func() {
		where, err := kube.resource(kind, a.name)
		if err == nil {
			err = where.Delete(context.WithoutCancel(t.Context()), name, metav1.DeleteOptions{})
		}
		if err != nil {
			t.Errorf("deleting %s %s: %v", kind.Kind, name, err)
		}
	})
}

// run submits the workflow and waits until it has ended.
func (a *argo) run(t testing.TB, object *anyObject) workflow {
	t.Helper()
	return a.submit(t, object).ended(t)
}

// until waits until the condition holds.
func (w workflow) until(t testing.TB, what string, condition func(workflow) bool) workflow {
	t.Helper()
	object := awaitObject(t, workflowKind, w.argo.name, w.GetName(), what, workflowWithin, func(u *anyObject) bool {
		return condition(workflow{u, w.argo})
	})
	return workflow{object, w.argo}
}

func (w workflow) ended(t testing.TB) workflow {
	t.Helper()
	w = w.until(t, "has ended", func(w workflow) bool {
		return slices.Contains([]string{"Succeeded", "Failed", "Error"}, w.phase())
	})
	if c := w.argo.compared; c != nil {
		w = c.add(t, w)
	}
	return w
}

// text returns a field that is text, empty if there is none.
func (w workflow) text(fields ...string) string {
	text, _, _ := unstructured.NestedString(w.Object, fields...)
	return text
}

func (w workflow) phase() string { return w.text("status", "phase") }

// has reports whether a node, named as in [workflow.nodes], is in a phase.
func (w workflow) has(name, phase string) bool {
	raw, _, _ := unstructured.NestedMap(w.Object, "status", "nodes")
	for _, n := range raw {
		fields, _ := n.(map[string]any)
		full, _, _ := unstructured.NestedString(fields, "name")
		is, _, _ := unstructured.NestedString(fields, "phase")
		if is == phase && below(w, full) == name {
			return true
		}
	}
	return false
}

// below is a node's name without the workflow's.
func below(w workflow, name string) string {
	return strings.TrimPrefix(strings.TrimPrefix(name, w.GetName()), ".")
}

// is checks how the workflow has ended.
func (w workflow) is(t testing.TB, phase string) workflow {
	t.Helper()
	if w.phase() != phase {
		t.Errorf("workflow %s is %s, not %s:\n%s", w.GetName(), w.phase(), phase, w.summary())
	}
	return w
}

// node is one of the workflow's nodes, as in status.nodes.
type node struct {
	ID, Name, Type, Phase, Message, Progress string
	MemoizationStatus                        *struct{ Hit bool }
	Outputs                                  results
}

type results struct {
	ExitCode   *string
	Result     *string
	Parameters []struct {
		Name  string
		Value *string
	}
	Artifacts []struct {
		Name, Path string
		S3         *struct{ Key string }
	}
}

// nodes returns all nodes by their names below the workflow's own, which is "".
func (w workflow) nodes(t testing.TB) map[string]node {
	t.Helper()
	raw, _, err := unstructured.NestedMap(w.Object, "status", "nodes")
	if err != nil {
		t.Fatal(err)
	}
	text, err := yaml.Marshal(raw)
	if err != nil {
		t.Fatal(err)
	}
	byID := map[string]node{}
	if err := yaml.Unmarshal(text, &byID); err != nil {
		t.Fatal(err)
	}
	found := map[string]node{}
	for _, n := range byID {
		found[below(w, n.Name)] = n
	}
	return found
}

// node returns the node with a name, as in [workflow.nodes].
func (w workflow) node(t testing.TB, name string) node {
	t.Helper()
	all := w.nodes(t)
	n, found := all[name]
	if !found {
		t.Fatalf("workflow %s has no node %q, only %q", w.GetName(), name, slices.Sorted(maps.Keys(all)))
	}
	return n
}

// is checks how a node has ended.
func (n node) is(t testing.TB, phase, exitCode string) node {
	t.Helper()
	if got := n.exitCode(); n.Phase != phase || got != exitCode {
		t.Errorf("node %s is %s (%s) with exit code %q, want %s with %q", n.Name, n.Phase, n.Message, got, phase, exitCode)
	}
	return n
}

func (n node) exitCode() string {
	if n.Outputs.ExitCode == nil {
		return ""
	}
	return *n.Outputs.ExitCode
}

// parameter returns the value of an output parameter.
func (n node) parameter(t testing.TB, name string) string {
	t.Helper()
	for _, p := range n.Outputs.Parameters {
		if p.Name == name && p.Value != nil {
			return *p.Value
		}
	}
	t.Fatalf("node %s has no output parameter %q: %+v", n.Name, name, n.Outputs)
	return ""
}

// result returns what the node's program printed, as Argo keeps it.
func (n node) result() string {
	if n.Outputs.Result == nil {
		return ""
	}
	return *n.Outputs.Result
}

// pods returns the pods that the workflow has made.
func (a *argo) pods(t testing.TB, w workflow) []corev1.Pod {
	t.Helper()
	pods, err := kube.typed.CoreV1().Pods(a.name).List(t.Context(), metav1.ListOptions{LabelSelector: workflowLabel + "=" + w.GetName()})
	if err != nil {
		t.Fatal(err)
	}
	return pods.Items
}

// pod returns the pod of a node.
func (a *argo) pod(t testing.TB, w workflow, name string) *corev1.Pod {
	t.Helper()
	n := w.node(t, name)
	for _, pod := range a.pods(t, w) {
		if pod.Annotations["workflows.argoproj.io/node-id"] == n.ID {
			return &pod
		}
	}
	t.Fatalf("node %s has no pod", n.Name)
	return nil
}

// logsOf returns what the program of a node's main container has written so far, without Argo's own lines in between.
func (a *argo) logsOf(t testing.TB, w workflow, name string) string {
	t.Helper()
	return argoLines.ReplaceAllString(a.logs(t, a.pod(t, w, name).Name, "main"), "")
}

var argoLines = regexp.MustCompile(`(?m)^time=.*\n`)

// summary returns a line for each node.
func (w workflow) summary() string {
	raw, _, _ := unstructured.NestedMap(w.Object, "status", "nodes")
	var lines []string
	for _, n := range raw {
		fields, _ := n.(map[string]any)
		line := ""
		for _, field := range []string{"name", "type", "phase", "message"} {
			value, _, _ := unstructured.NestedString(fields, field)
			line += value + " "
		}
		lines = append(lines, line)
	}
	slices.Sort(lines)
	return w.text("status", "message") + "\n" + strings.Join(lines, "\n")
}

func TestWorkflowHello(t *testing.T) {
	eachArgo(t, func(t *testing.T, a *argo) {
		w := a.run(t, asWasm.workflow(t, `
entrypoint: main
templates:
- name: main
  container: {image: $IMAGE, command: [$PROBE], args: [say, hello]}
`)).is(t, "Succeeded")
		w.node(t, "").is(t, "Succeeded", "0")
		equal(t, "what it printed", a.logsOf(t, w, ""), "hello\n")
	})
}

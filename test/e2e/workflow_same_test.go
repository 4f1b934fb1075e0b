package e2e

import (
	"encoding/json"
	"fmt"
	"maps"
	"path"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// sameAsNative runs the workflow as Wasm and natively on every version of Argo, at the same time. All runs must pass the
// check. On each version, both must leave the same results. See also -three-ways.
func sameAsNative(t *testing.T, spec string, check func(t *testing.T, w workflow)) {
	t.Helper()
	sameWhen(t, spec, nil, check)
}

// sameWhen is [sameAsNative] with an action that is done while each workflow runs.
func sameWhen(t *testing.T, spec string, act, check func(t *testing.T, w workflow)) {
	t.Helper()
	eachArgo(t, func(t *testing.T, a *argo) {
		var runs []workflow
		runs = append(runs, a.submit(t, asWasm.workflow(t, spec)))
		if !a.executor { // a native pod has Argo's own executor in any case
			runs = append(runs, a.submit(t, asNative.workflow(t, spec)))
		}
		for i, w := range runs {
			if act != nil {
				act(t, w)
			}
			runs[i] = w.ended(t)
		}
		for _, w := range runs {
			check(t, w)
		}
		if !a.executor {
			leftTheSame(t, runs[0], runs[1])
		}
	})
}

// leftTheSame compares what two runs of a workflow have left, node by node.
func leftTheSame(t *testing.T, wasm, native workflow) {
	t.Helper()
	got, want := wasm.left(t), native.left(t)
	for _, name := range slices.Sorted(maps.Keys(want)) {
		if got[name] != want[name] {
			t.Errorf("node %q left\n%s\nnatively\n%s", name, got[name], want[name])
		}
		delete(got, name)
	}
	if len(got) > 0 {
		t.Errorf("there are nodes that are not there natively: %v", got)
	}
}

// times are those of RFC 3339, as Argo writes them.
var times = regexp.MustCompile(`\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ`)

// left describes how each node ended and what it left, without names that differ from run to run.
func (w workflow) left(t testing.TB) map[string]string {
	t.Helper()
	all := map[string]string{"(workflow)": fmt.Sprintf("%s %q", w.phase(), w.text("status", "message"))}
	for name, n := range w.nodes(t) {
		for i := range n.Outputs.Artifacts {
			if s3 := n.Outputs.Artifacts[i].S3; s3 != nil {
				s3.Key = path.Base(s3.Key)
			}
		}
		outputs, err := json.Marshal(n.Outputs)
		if err != nil {
			t.Fatal(err)
		}
		all[name] = fmt.Sprintf("%s %s %q hit: %v %s", n.Type, n.Phase, n.Message, n.MemoizationStatus != nil && n.MemoizationStatus.Hit, outputs)
	}
	for _, pod := range w.argo.pods(t, w) {
		name := below(w, pod.Annotations["workflows.argoproj.io/node-name"])
		for _, container := range slices.Concat(pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses) {
			// When a pod is ended, the exit codes of Argo's own containers are random.
			if end := container.State.Terminated; end != nil && container.Name != "init" && container.Name != "wait" {
				all[name] += fmt.Sprintf("\ncontainer %s: %d %s %q", container.Name, end.ExitCode, end.Reason, end.Message)
			}
		}
	}
	run := strings.NewReplacer(w.GetName(), "WORKFLOW", asWasm.image, "IMAGE", asNative.image, "IMAGE",
		fmt.Sprintf("%q", asWasm.program), `"PROBE"`, fmt.Sprintf("%q", asNative.program), `"PROBE"`)
	for name := range all {
		all[name] = times.ReplaceAllString(run.Replace(all[name]), "TIME")
	}
	return all
}

func equal(t testing.TB, what, got, want string) {
	t.Helper()
	if got != want {
		t.Errorf("%s is %q, want %q", what, got, want)
	}
}

package e2e

import (
	"encoding/json"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"
	"testing"
)

// sameAsNative runs the workflow on every version of Argo, as Wasm and natively at the same time, checks both, and that both
// have left the same.
func sameAsNative(t *testing.T, spec string, check func(t *testing.T, w workflow)) {
	t.Helper()
	eachArgo(t, func(t *testing.T, a *argo) {
		wasm, native := a.submit(t, asWasm.workflow(t, spec)), a.submit(t, asNative.workflow(t, spec))
		wasm, native = wasm.ended(t), native.ended(t)
		check(t, native)
		check(t, wasm)
		leftTheSame(t, wasm, native)
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

// left tells how each node ended and what it left, without names that differ from run to run.
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
	run := strings.NewReplacer(w.GetName(), "WORKFLOW", asWasm.image, "IMAGE", asNative.image, "IMAGE",
		fmt.Sprintf("%q", asWasm.program), `"PROBE"`, fmt.Sprintf("%q", asNative.program), `"PROBE"`)
	for name := range all {
		all[name] = run.Replace(all[name])
	}
	return all
}

func equal(t testing.TB, what, got, want string) {
	t.Helper()
	if got != want {
		t.Errorf("%s is %q, want %q", what, got, want)
	}
}

package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/wasmshim/containerd-shim-wasm/internal/examples"
)

// exampleChecks has the expected result of each example of examples/argo.
var exampleChecks = map[string]func(t *testing.T, w workflow){
	"hello.yaml": func(t *testing.T, w workflow) {
		w.printed(t, "", "hello Argo, from WebAssembly (wasm32)\n")
	},
	"parameters.yaml": func(t *testing.T, w workflow) {
		equal(t, "the total", w.node(t, "").parameter(t, "total"), "288")
		equal(t, "the area", w.node(t, "[0].square").parameter(t, "area"), "144")
	},
	"artifacts.yaml": func(t *testing.T, w workflow) {
		equal(t, "the most frequent word", w.node(t, "").parameter(t, "most-frequent"), "the\t3")
		equal(t, "the text", unpacked(t, w.node(t, "[0].write").artifact(t, "text")),
			`0 text  "the quick brown fox\njumps over the lazy dog\nand the moon\n"`+"\n")
		counts := unpacked(t, w.node(t, "[1].count").artifact(t, "counts"))
		if !strings.Contains(counts, `0 counts/summary.txt  "12 words, 10 different, 3 lines\n"`) {
			t.Errorf("the counts are %s", counts)
		}
		w.printed(t, "[2].read", "12 words, 10 different, 3 lines\n")
	},
	"diamond.yaml": func(t *testing.T, w workflow) {
		equal(t, "the total", w.node(t, "").parameter(t, "total"), "2870")
		for i := range 20 {
			equal(t, "a square", w.node(t, fmt.Sprintf("square(%d:%d)", i, i+1)).parameter(t, "result"), fmt.Sprint((i+1)*(i+1)))
		}
	},
	"script.yaml": func(t *testing.T, w workflow) {
		equal(t, "the list", w.node(t, "[0].generate").result(), "[2,3,5,7,11,13,17,19,23,29]")
		w.printed(t, "[1].square(9:29)", "841\n")
	},
	"containerset.yaml": func(t *testing.T, w workflow) {
		equal(t, "the first word", w.node(t, "").parameter(t, "first"), "fish\t4")
		for _, container := range []string{"prepare", "count", "main"} {
			w.node(t, container).is(t, "Succeeded", "")
		}
		w.printed(t, "", "8 words, 5 different, 1 lines\n")
	},
	"retry.yaml": func(t *testing.T, w workflow) {
		w.node(t, "(0)").is(t, "Failed", "75")
		w.node(t, "(1)").is(t, "Failed", "75")
		w.node(t, "(2)").is(t, "Succeeded", "0")
		w.printed(t, "onExit", "hello "+w.GetName()+": Succeeded, from WebAssembly (wasm32)\n")
	},
	"from-template.yaml": func(t *testing.T, w workflow) {
		equal(t, "the total", w.node(t, "").parameter(t, "total"), "285")
		equal(t, "the summary", w.node(t, "").parameter(t, "summary"), "6 words, 4 different, 1 lines")
	},
}

// printed checks that the program of a node's main container printed the text.
func (w workflow) printed(t testing.TB, name, want string) {
	t.Helper()
	if got := w.argo.logsOf(t, w, name); !strings.Contains(got, want) {
		t.Errorf("node %q printed %q, want %q", name, got, want)
	}
}

// TestWorkflowExamples runs every example of examples/argo unchanged.
func TestWorkflowExamples(t *testing.T) {
	all, err := examples.All(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for ref, opts := range all {
		if err := cluster.ImportImage(t.Context(), ref, opts); err != nil {
			t.Fatal(err)
		}
	}
	files, err := examples.Workflows()
	if err != nil {
		t.Fatal(err)
	}
	var workflows []*anyObject
	var templates []*anyObject
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		switch object := fromYAML(t, string(text)); object.GetKind() {
		case "Workflow":
			object.SetAnnotations(map[string]string{"example": filepath.Base(file)})
			workflows = append(workflows, object)
		case "WorkflowTemplate":
			templates = append(templates, object)
		}
	}
	if len(workflows) != len(exampleChecks) {
		t.Errorf("there are %d examples and %d checks", len(workflows), len(exampleChecks))
	}
	eachArgo(t, func(t *testing.T, a *argo) {
		for _, template := range templates {
			a.apply(t, template.DeepCopy())
		}
		for _, object := range workflows {
			file := object.GetAnnotations()["example"]
			t.Run(strings.TrimSuffix(file, ".yaml"), func(t *testing.T) {
				t.Parallel()
				w := a.run(t, object.DeepCopy()).is(t, "Succeeded")
				exampleChecks[file](t, w)
			})
		}
	})
}

// apply creates an object that is deleted at the test's end.
func (a *argo) apply(t testing.TB, object *anyObject) {
	t.Helper()
	a.deleted(t, create(t, a.name, object))
}

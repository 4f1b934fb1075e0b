package examples

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"
)

// workflow has the fields of an example that the test checks.
type workflow struct {
	Spec struct {
		PodSpecPatch string     `json:"podSpecPatch"`
		Templates    []template `json:"templates"`
	} `json:"spec"`
}

type template struct {
	Name         string      `json:"name"`
	PodSpecPatch string      `json:"podSpecPatch"`
	Container    *container  `json:"container"`
	Script       *container  `json:"script"`
	ContainerSet *containers `json:"containerSet"`
}

type containers struct {
	Containers []container `json:"containers"`
}

type container struct {
	Image   string   `json:"image"`
	Command []string `json:"command"`
}

func (t template) containers() []container {
	var all []container
	for _, c := range []*container{t.Container, t.Script} {
		if c != nil {
			all = append(all, *c)
		}
	}
	if t.ContainerSet != nil {
		all = append(all, t.ContainerSet.Containers...)
	}
	return all
}

const runtimeClassPatch = `{"runtimeClassName":"wasm"}`

// Each example names images that exist, sets the commands that Argo would otherwise ask a registry for, and gives Wasm
// steps the runtime class. Some example uses each program, and examples/README.md has a line for each file. The tests
// in test/e2e run the examples on a cluster.
func TestWorkflows(t *testing.T) {
	names, err := Names()
	if err != nil {
		t.Fatal(err)
	}
	index := read(t, "../../examples/README.md")
	unused := map[string]bool{}
	for _, name := range names {
		unused[Reference(name)] = true
		if !strings.Contains(index, "](guests/"+name) {
			t.Errorf("examples/README.md has no link to guests/%s", name)
		}
	}
	known := append([]string{strings.TrimPrefix(Native, "docker.io/library/")}, slices.Collect(maps.Keys(unused))...)
	files, err := Workflows()
	if err != nil || len(files) < 8 {
		t.Fatalf("%d examples, %v", len(files), err)
	}
	for _, file := range files {
		text := read(t, file)
		if !strings.Contains(index, "(argo/"+filepath.Base(file)+")") {
			t.Errorf("examples/README.md has no link to %s", file)
		}
		if !strings.Contains(text, filepath.Base(file)+"\n") {
			t.Errorf("%s does not say how to run it", file)
		}
		if err := yaml.UnmarshalStrict([]byte(text), &map[string]any{}); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		var w workflow
		if err := yaml.Unmarshal([]byte(text), &w); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		for _, template := range w.Spec.Templates {
			for _, c := range template.containers() {
				if !slices.Contains(known, c.Image) {
					t.Errorf("%s: template %s: no image %q", file, template.Name, c.Image)
				}
				if len(c.Command) == 0 {
					t.Errorf("%s: template %s gives image %s no command", file, template.Name, c.Image)
				}
				patched := w.Spec.PodSpecPatch == runtimeClassPatch || template.PodSpecPatch == runtimeClassPatch
				if strings.Contains(c.Image, "wasm-examples") && !patched {
					t.Errorf("%s: template %s runs Wasm without the runtime class", file, template.Name)
				}
				delete(unused, c.Image)
			}
		}
	}
	if len(unused) > 0 {
		t.Errorf("no example uses %v", unused)
	}
}

func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

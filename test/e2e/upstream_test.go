package e2e

import (
	"context"
	"flag"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"sigs.k8s.io/yaml"

	"github.com/wasmshim/containerd-shim-wasm/internal/repo"
)

var (
	upstream    = flag.Bool("upstream", false, "run upstream's example workflows (make e2e-examples)")
	upstreamAll = flag.Bool("upstream-all", false, "run the large ones, too, and write the results of what is run into docs/argo.md")
	upstreamBy  = flag.String("upstream-by", upstreamVersion, "the version of Argo that runs them; with another than the default, docs/argo.md is left alone")
)

// upstreamVersion is the version of Argo whose examples are run.
const upstreamVersion = "4.0"

// way is one of the ways to run an example. All names of its objects end with its suffix.
type way struct {
	name   string
	suffix string
	flavour
	executor bool // Argo's own executor in pods of the Wasm class
}

var ways = []way{
	{"containers", "-c", asNative, false},
	{"Wasm, argoexec", "-e", asWasm, true},
	{"Wasm, stand-ins", "-s", asWasm, false},
}

// TestUpstreamExamples runs upstream's own example workflows in containers, as Wasm with Argo's own executor, and as
// Wasm with the stand-ins. All three runs must leave the same, except for the known differences.
func TestUpstreamExamples(t *testing.T) {
	if !*upstream && !*upstreamAll {
		t.Skip("make e2e-examples runs it")
	}
	began := time.Now()
	dir := upstreamDir(t)
	checkListed(t, dir)
	if err := importUpstreamImage(t.Context(), t.TempDir()); err != nil {
		t.Fatal(err)
	}
	a := argoVersion(*upstreamBy)
	for _, text := range upstreamObjects() {
		a.apply(t, fromYAML(t, text))
	}
	seen := record(t, a)
	rows := make([]row, len(upstreamExamples))
	t.Run("each", func(t *testing.T) {
		for i, e := range upstreamExamples {
			rows[i] = row{name: e.name()}
			if e.large && !*upstreamAll {
				continue
			}
			t.Run(e.name(), func(t *testing.T) {
				rows[i].result = "did not end"
				t.Parallel()
				rows[i] = e.compare(t, a, dir, seen)
			})
		}
	})
	t.Logf("three ways took %v", time.Since(began).Round(time.Second))
	for i, reason := range leftToArgoexec(t, rows) {
		t.Errorf("%s: a stand-in was not used: %s", rows[i].name, reason)
		rows[i].result += " Left to argoexec: " + reason
	}
	if *upstreamBy == upstreamVersion {
		checkTable(t, rows)
	}
}

// leftToArgoexec returns, for rows, why the shim left containers of the third way to the real executor.
func leftToArgoexec(t testing.TB, rows []row) map[int]string {
	t.Helper()
	text, err := os.ReadFile(cluster.Log("containerd"))
	if err != nil {
		t.Fatal(err)
	}
	reasons := map[string]string{}
	for line := range strings.Lines(string(text)) {
		if found := leftLine.FindStringSubmatch(line); found != nil {
			reasons[found[1]] = found[2]
		}
	}
	if len(reasons) == 0 {
		t.Error("containerd's log has no line about the pods of the second way, whose annotation asks for argoexec")
	}
	left := map[int]string{}
	for i, r := range rows {
		for _, id := range r.containers {
			if reason := reasons[id]; reason != "" {
				left[i] = reason
			}
		}
	}
	return left
}

var leftLine = regexp.MustCompile(`msg="Argo's executor is left to the stock shim" container=(\w+) error="(.*)" namespace=`)

// upstreamDir returns the folder of upstream's examples in the module of Argo that the cluster runs.
func upstreamDir(t testing.TB) string {
	t.Helper()
	root, err := repo.Root()
	if err != nil {
		t.Fatal(err)
	}
	command := exec.CommandContext(t.Context(), "go", "list", "-mod=readonly", "-f", "{{with .Module}}{{.Dir}}{{end}}",
		"github.com/argoproj/argo-workflows/v4/pkg/apis/workflow")
	command.Dir = filepath.Join(root, "hack", "tools", "argo-"+upstreamVersion)
	command.Env = append(os.Environ(), "GOWORK=off", "GOFLAGS=")
	output, err := command.Output()
	if err != nil {
		t.Fatalf("looking for Argo's sources: %v", err)
	}
	return filepath.Join(strings.TrimSpace(string(output)), "examples")
}

// checkListed checks that each example is run or left out.
func checkListed(t testing.TB, dir string) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*.yaml"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no examples in %s: %v", dir, err)
	}
	listed := map[string]int{}
	for _, e := range upstreamExamples {
		listed[e.file]++
	}
	for _, kind := range leftOutExamples {
		for _, name := range strings.Fields(kind.names) {
			listed[name+".yaml"]++
		}
	}
	for _, file := range files {
		if n := listed[filepath.Base(file)]; n != 1 {
			t.Errorf("upstream's %s is in the lists of this test %d times", filepath.Base(file), n)
		}
	}
	for name := range listed {
		if _, err := os.Stat(filepath.Join(dir, name)); err != nil {
			t.Error(err)
		}
	}
}

// upstreamImage stands for upstream's images: the native probe, busybox, and scripts in the place of other programs.
const upstreamImage = "example.com/e2e/upstream:1"

var upstreamPrograms = map[string]string{
	"cowsay": `echo "$@"`,
	"curl":   `for last; do :; done; exec wget -q -O - "$last"`,
}

func importUpstreamImage(ctx context.Context, dir string) error {
	opts, err := withBusybox("probe-native", "/app")
	if err != nil {
		return err
	}
	for name, text := range upstreamPrograms {
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, []byte("#!/bin/sh\n"+text+"\n"), 0o755); err != nil {
			return err
		}
		opts.Files["/bin/"+name] = file
	}
	opts.Texts["/etc/os-release"] = "ID=busybox\n"
	return cluster.ImportImage(ctx, upstreamImage, opts)
}

// upstreamObjects are the objects that examples expect in their namespace.
func upstreamObjects() []string {
	s3 := cluster.S3()
	return []string{`
apiVersion: v1
kind: ConfigMap
metadata: {name: simple-parameters, labels: {workflows.argoproj.io/configmap-type: Parameter}}
data: {msg: hello world}
`, `
apiVersion: v1
kind: ConfigMap
metadata: {name: my-config}
data: {template: "2", workflow: "1"}
`, `
apiVersion: v1
kind: Secret
metadata: {name: my-secret}
stringData: {mypassword: not secret}
`, `
apiVersion: v1
kind: ConfigMap
metadata: {name: artifact-repositories}
data:
  my-key: |
    s3:
      endpoint: ` + s3.Endpoint + `
      bucket: ` + s3.Bucket + `
      region: ` + s3.Region + `
      insecure: true
      keyFormat: "{{workflow.name}}/mine/{{pod.name}}"
      accessKeySecret: {name: s3, key: access-key}
      secretKeySecret: {name: s3, key: secret-key}
`}
}

// upstreamExample is one of upstream's files with what is different here.
type upstreamExample struct {
	file     string
	large    bool                   // not run by default
	fails    bool                   // ends as Failed, otherwise as Succeeded
	programs map[string]replacement // of templates, or of template/container
	own      []string               // names in the text that each run has for itself
	library  string                 // a file with the templates that it refers to
	edit     func(spec map[string]any)
	objects  map[string]string // that are in the bucket before, below the workflow's name
	known    []knownDifference
}

// name returns the example's name in the table.
func (e upstreamExample) name() string { return strings.TrimSuffix(e.file, ".yaml") }

// replacement runs in the place of a container's own: a script, or the probe, as Wasm where that is asked for.
type replacement struct {
	script string // for sh
	source string // for the interpreter that the example names
	probe  []string
}

func sh(script string) replacement     { return replacement{script: script} }
func source(text string) replacement   { return replacement{source: text} }
func probe(args ...string) replacement { return replacement{probe: args} }

// objects returns the example as the objects to create for one way; the last one is the workflow.
func (e upstreamExample) prepared(t testing.TB, dir string, w way) []*anyObject {
	t.Helper()
	var objects []*anyObject
	for _, file := range []string{e.library, e.file} {
		if file == "" {
			continue
		}
		text, err := os.ReadFile(filepath.Join(dir, file))
		if err != nil {
			t.Fatal(err)
		}
		named := string(text)
		for _, name := range e.own {
			named = strings.ReplaceAll(named, name, name+e.ownSuffix(w))
		}
		for document := range strings.SplitSeq(named, "\n---\n") {
			objects = append(objects, fromYAML(t, document))
		}
	}
	for i, object := range objects {
		spec, _ := object.Object["spec"].(map[string]any)
		if i == len(objects)-1 {
			if e.edit != nil {
				e.edit(spec)
			}
			object = e.workflow(t, object, w)
		}
		if err := e.mapped(spec, "", w); err != nil {
			t.Fatal(err)
		}
		objects[i] = object
	}
	return objects
}

// workflow returns the workflow of an object of any kind that holds one.
func (e upstreamExample) workflow(t testing.TB, object *anyObject, w way) *anyObject {
	t.Helper()
	made := &anyObject{Object: map[string]any{"spec": object.Object["spec"]}}
	made.SetGroupVersionKind(workflowKind)
	made.SetName(e.workflowName(w))
	made.SetLabels(object.GetLabels())
	made.SetAnnotations(object.GetAnnotations())
	if w.class != nil {
		patch := map[string]any{}
		if err := yaml.Unmarshal([]byte(workflow{made, nil}.text("spec", "podSpecPatch")), &patch); err != nil {
			t.Fatal(err)
		}
		if patch == nil {
			patch = map[string]any{}
		}
		patch["runtimeClassName"] = *w.class
		text, err := yaml.Marshal(patch)
		if err != nil {
			t.Fatal(err)
		}
		set(t, made, string(text), "spec", "podSpecPatch")
	}
	if w.executor {
		set(t, made, "true", "spec", "podMetadata", "annotations", "wasm.shim/native-argoexec")
	}
	return made
}

func (e upstreamExample) workflowName(w way) string {
	name := strings.ToLower(strings.ReplaceAll(e.name(), "/", "-"))
	return "up-" + name[:min(len(name), 43)] + w.suffix // a label's value has at most 63 characters, some with words of Argo's
}

// ownSuffix is the end of the names that a run has for itself.
func (e upstreamExample) ownSuffix(w way) string { return "-" + filepath.Base(e.name()) + w.suffix }

// mapped changes the containers and the keys of S3 objects in a part of a specification. The template that the part
// belongs to has the name.
func (e upstreamExample) mapped(part any, template string, w way) error {
	switch part := part.(type) {
	case []any:
		for _, item := range part {
			if err := e.mapped(item, template, w); err != nil {
				return err
			}
		}
	case map[string]any:
		if _, isContainer := part["image"].(string); isContainer {
			return e.container(part, template, w)
		}
		if name, named := part["name"].(string); named {
			template = name
		}
		for _, field := range slices.Sorted(maps.Keys(part)) {
			if field == "withItems" {
				continue // an item may have an "image"
			}
			if s3, isMap := part[field].(map[string]any); isMap && field == "s3" {
				part[field] = inBucket(s3)
			} else if err := e.mapped(part[field], template, w); err != nil {
				return err
			}
		}
	}
	return nil
}

// inBucket returns an object of the cluster's own bucket with a key below the workflow's name.
func inBucket(s3 map[string]any) map[string]any {
	key, _ := s3["key"].(string)
	if !strings.Contains(key, "{{workflow.name}}") {
		key = "{{workflow.name}}/" + key
	}
	return map[string]any{"key": key}
}

// container sets a container's image and program. Echo and argosay become the probe, in ways 2 and 3 as Wasm. Where
// the example needs no program that is not here, its own runs natively.
func (e upstreamExample) container(c map[string]any, template string, w way) error {
	full := template
	if name, _ := c["name"].(string); name != "" {
		full = template + "/" + name
	}
	p, replaced := e.programs[full]
	command, args := words(c["command"]), words(c["args"])
	if !replaced {
		p = usual(command, args)
	}
	image, _ := c["image"].(string)
	c["image"] = upstreamImage
	_, isScript := c["source"]
	switch {
	case p.probe != nil:
		c["image"] = w.image
		c["command"], c["args"] = list(w.program), list(p.probe...)
		if isScript { // its arguments are the source file alone
			c["command"] = list(append([]string{w.program}, p.probe...)...)
			delete(c, "args")
		}
	case p.source != "":
		c["source"] = p.source
	case p.script != "" && isScript:
		c["command"], c["source"] = list("sh"), p.script
	case p.script != "":
		c["command"], c["args"] = list("sh", "-c"), list(p.script)
	case len(command) == 0 || !slices.Contains(nativePrograms, filepath.Base(command[0])):
		return fmt.Errorf("%s: no program for %s, which has %s and %q", e.file, full, image, command)
	}
	return nil
}

// nativePrograms are those of upstreamImage that examples name.
var nativePrograms = []string{"cat", "mkdir", "sh", "sleep", "true"}

// usual returns the probe's arguments for what many examples run.
func usual(command, args []string) replacement {
	switch {
	case len(command) > 0 && command[0] == "echo":
		return probe("say", strings.Join(append(command[1:], args...), " "))
	case len(command) > 0:
		return replacement{}
	case len(args) == 0: // argosay
		return probe("say", "hello argo")
	case args[0] == "echo" && len(args) == 3:
		return probe("write", args[2], args[1])
	case args[0] == "cat" && len(args) == 2:
		return probe("read", args[1])
	}
	return replacement{}
}

func words(value any) []string {
	items, _ := value.([]any)
	var found []string
	for _, item := range items {
		found = append(found, fmt.Sprint(item))
	}
	return found
}

func list(items ...string) []any {
	var all []any
	for _, item := range items {
		all = append(all, item)
	}
	return all
}

// compare runs the example in all ways and compares what they have left.
func (e upstreamExample) compare(t *testing.T, a *argo, dir string, seen *recorder) row {
	runs := make([]workflow, len(ways))
	for i, w := range ways {
		objects := e.prepared(t, dir, w)
		last := len(objects) - 1
		for _, object := range objects[:last] {
			a.apply(t, object)
		}
		for name, text := range e.objects {
			file := filepath.Join(cluster.S3().Dir, e.workflowName(w), name)
			if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		runs[i] = a.submit(t, objects[last])
	}
	traces := make([]trace, len(ways))
	for i, w := range runs {
		w = w.ended(t)
		w = seen.settled(t, w)
		traces[i] = seen.trace(t, w, e, ways[i])
	}
	r := row{name: e.name(), phase: runs[0].phase()}
	if phase := traces[0]["(workflow) phase"]; phase != "" {
		r.phase = phase
	}
	if want := map[bool]string{true: "Failed", false: "Succeeded"}[e.fails]; r.phase != want {
		t.Errorf("the workflow is %s in containers, not %s: %s", r.phase, want, traces[0]["(workflow) message"])
	}
	pods := seen.pods(t, runs[2].GetName())
	r.pods = len(pods)
	for _, pod := range pods {
		for _, c := range slices.Concat(pod.Spec.InitContainers, pod.Spec.Containers) {
			switch c.Image {
			case probeImage:
				r.wasm++
			case upstreamImage:
				r.native++
			}
		}
		for _, c := range slices.Concat(pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses) {
			_, id, _ := strings.Cut(c.ContainerID, "://")
			r.containers = append(r.containers, id)
		}
	}
	reasons := map[string]bool{}
	for _, key := range differing(traces) {
		text := key
		for i, w := range ways {
			text += fmt.Sprintf("\n    %-16s %s", w.name+":", traces[i].show(key))
		}
		if why := e.why(key, traces); why != "" {
			reasons[why] = true
			t.Logf("known: %s\n%s", why, text)
			continue
		}
		t.Error("differs: " + text)
		reasons["not known"] = true
	}
	r.result = "the same"
	if len(reasons) > 0 {
		r.result = strings.Join(slices.Sorted(maps.Keys(reasons)), " ")
	}
	return r
}

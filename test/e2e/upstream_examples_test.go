package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/wasmshim/containerd-shim-wasm/internal/repo"
)

// What stands for programs that are random or not here.
var (
	twoFailures = sh(`exit $(( {{retries}} < 2 ))`)
	httpServer  = sh(`mkdir -p /www; echo hello > /www/index.html; exec httpd -f -p 80 -h /www`)
)

// of returns the same program for one template, or one container.
func of(name string, p replacement) map[string]replacement { return map[string]replacement{name: p} }

// upstreamExamples are upstream's examples that can run here: with images of this machine, without the internet.
var upstreamExamples = []upstreamExample{
	{file: "archive-location.yaml"},
	{file: "arguments-parameters-from-configmap.yaml"},
	{file: "arguments-parameters.yaml"},
	{file: "artifact-disable-archive.yaml"},
	{file: "artifact-passing-subpath.yaml"},
	{file: "artifact-passing.yaml"},
	{file: "artifact-path-placeholders.yaml"},
	{file: "artifact-repository-ref.yaml"},
	{
		file: "artifacts-workflowtemplate.yaml",
		programs: map[string]replacement{
			"main/gnuplot": sh(`cp /in/annual.csv /out/assets/global-temp.png`),
		},
		edit: func(spec map[string]any) {
			edited(spec, "templates", 0, "inputs", "artifacts", 0)["raw"] = map[string]any{"data": "year,mean\n2026,1\n"}
			delete(edited(spec, "templates", 0, "inputs", "artifacts", 0), "http")
			// Both write below /out, where the order must not matter.
			edited(spec, "templates", 0, "containerSet", "containers", 2)["dependencies"] = list("gnuplot")
		},
	},
	{file: "coinflip-recursive.yaml", programs: of("flip-coin", probe("say", "heads"))},
	{file: "coinflip.yaml", programs: of("flip-coin", probe("say", "tails"))},
	{file: "conditional-artifacts.yaml", programs: map[string]replacement{
		"flip-coin": probe("say", "heads"),
		"heads":     probe("write", "/result.txt", "heads it was"),
		"tails":     probe("write", "/result.txt", "tails it was"),
	}},
	{file: "conditional-parameters.yaml", programs: map[string]replacement{
		"flip-coin": probe("say", "tails"), "heads": probe("say", "heads"), "tails": probe("say", "tails"),
	}},
	{file: "conditionals-complex.yaml", large: true, programs: of("flip-coin", probe("say", "tails"))},
	{file: "conditionals.yaml", programs: of("argosay", probe("say", "hello"))},
	{file: "container-set-template/graph-workflow.yaml"},
	{file: "container-set-template/outputs-result-workflow.yaml", programs: map[string]replacement{
		"group/main": probe("say", "hi"),
		"verify":     sh(`[ "{{inputs.parameters.x}}" = hi ]`),
	}},
	{file: "container-set-template/parallel-workflow.yaml"},
	{file: "container-set-template/sequence-workflow.yaml"},
	{file: "container-set-template/workspace-workflow.yaml"},
	{file: "continue-on-fail.yaml"},
	{file: "custom-metrics.yaml", programs: map[string]replacement{
		"random-int": sh(`echo 4 | tee /tmp/rand_int.txt`),
		"flakey":     probe("exit", "0"),
	}},
	{file: "daemon-nginx.yaml", programs: of("nginx-server", httpServer)},
	{file: "dag-coinflip.yaml", large: true, programs: of("flip-coin", probe("say", "heads"))},
	{file: "dag-conditional-artifacts.yaml", programs: map[string]replacement{
		"flip-coin": probe("say", "tails"),
		"heads":     probe("write", "/result.txt", "heads it was"),
		"tails":     probe("write", "/result.txt", "tails it was"),
	}},
	{file: "dag-conditional-parameters.yaml", programs: map[string]replacement{
		"flip-coin": probe("say", "heads"), "heads": probe("say", "heads"), "tails": probe("say", "tails"),
	}},
	{file: "dag-continue-on-fail.yaml", fails: true, large: true},
	{file: "dag-custom-metrics.yaml", large: true},
	{file: "dag-daemon-retry-strategy.yaml", large: true, programs: of("server", httpServer)},
	{file: "dag-diamond.yaml"},
	{file: "dag-disable-failFast.yaml", fails: true, large: true, programs: of("b", sh(`sleep 3; echo done`))},
	{file: "dag-enhanced-depends.yaml", large: true},
	{file: "dag-inline-workflow.yaml"},
	{file: "dag-inline-workflowtemplate.yaml"},
	{file: "dag-multiroot.yaml", large: true},
	{file: "dag-targets.yaml"},
	{file: "default-pdb-support.yaml", programs: of("pdbcreate", probe("sleep", "2"))},
	{file: "dns-config.yaml"},
	{file: "exit-code-output-variable.yaml"},
	{file: "exit-handler-dag-level.yaml", large: true},
	{file: "exit-handler-step-level.yaml", large: true},
	{file: "exit-handler-with-artifacts.yaml", programs: of("output", probe("write", "/result.txt", "hello"))},
	{file: "exit-handler-with-param.yaml", programs: of("exit", probe("say", "{{inputs.parameters.message}}"))},
	{file: "exit-handlers.yaml", fails: true},
	{file: "expression-destructure-json-complex.yaml"},
	{file: "expression-destructure-json.yaml"},
	{file: "expression-reusing-verbose-snippets.yaml"},
	{file: "expression-tag-template-workflow.yaml"},
	{file: "global-outputs.yaml", large: true},
	{file: "global-parameters-from-configmap-referenced-as-local-variable.yaml"},
	{file: "global-parameters-from-configmap.yaml"},
	{file: "global-parameters.yaml"},
	{file: "handle-large-output-results.yaml", programs: of("echo",
		sh(`tr -d '[]" ' < /tmp/items | cut -d, -f$(({{inputs.parameters.index}} + 1))`))},
	{file: "hello-world.yaml"},
	{file: "init-container.yaml"},
	{file: "input-artifact-raw.yaml"},
	{file: "input-artifact-s3.yaml", programs: of("input-artifact-s3-example", sh(`cat /my-artifact/*`)),
		objects: map[string]string{"path/in/bucket/one": "1\n", "path/in/bucket/two": "2\n"}},
	{file: "key-only-artifact.yaml", programs: of("generate", sh(`mkdir /mnt; echo hello > /mnt/file`))},
	{file: "label-value-from-workflow.yaml"},
	{file: "loops-arbitrary-sequential-steps.yaml", fails: true},
	{file: "loops-dag.yaml", large: true},
	{file: "loops-maps.yaml", large: true, programs: of("cat-os-release", sh(`cat /etc/os-release`))},
	{file: "loops-param-argument.yaml", programs: of("cat-os-release", sh(`cat /etc/os-release`))},
	{file: "loops-param-result.yaml", large: true, programs: of("gen-number-list", probe("say", "[1, 2, 3]"))},
	{file: "loops.yaml"},
	{file: "map-reduce.yaml", programs: map[string]replacement{
		"split": sh(`mkdir -p /mnt/out
for i in 0 1 2 3; do echo "{\"foo\": $i}" > /mnt/out/$i.json; done
echo '["0", "1", "2", "3"]'`),
		"map":    sh(`mkdir -p /mnt/out; sed s/foo/bar/ /mnt/in/part.json > /mnt/out/part.json`),
		"reduce": sh(`mkdir -p /mnt/out; cat /mnt/in/* > /mnt/out/total.json`),
	}},
	{file: "memoize-simple.yaml", own: []string{"cache-config"}},
	{file: "nested-workflow.yaml"},
	{file: "node-selector.yaml"},
	{file: "output-artifact-s3.yaml"},
	{file: "output-parameter.yaml"},
	{file: "parameter-aggregation-dag.yaml", large: true},
	{file: "parameter-aggregation-script.yaml", programs: of("odd-or-even",
		sh(`i={{inputs.parameters.num}}; [ $((i % 2)) = 0 ] && is=even || is=odd; echo "{\"num\": $i, \"evenness\": \"$is\"}"`))},
	{file: "parameter-aggregation.yaml", large: true},
	{file: "pod-gc-strategy-with-label-selector.yaml", fails: true},
	{file: "pod-gc-strategy.yaml", fails: true},
	{file: "pod-metadata-wf-field.yaml"},
	{file: "pod-metadata.yaml"},
	{file: "pod-spec-patch-wf-tmpl.yaml"},
	{file: "pod-spec-patch.yaml"},
	{file: "pod-spec-yaml-patch.yaml"},
	{file: "recursive-for-loop.yaml", programs: of("counter-iteration", sh(`echo $(({{inputs.parameters.counter}} + 3))`))},
	{file: "retry-backoff.yaml", programs: of("retry-backoff", twoFailures)},
	{file: "retry-conditional.yaml", fails: true, programs: map[string]replacement{
		"safe-to-retry": probe("say", "true"),
		"retry-script":  sh(`exit $((2 - {{retries}}))`),
	}},
	{file: "retry-container-to-completion.yaml", programs: of("retry-to-completion", twoFailures)},
	{file: "retry-container.yaml", programs: of("retry-container", twoFailures)},
	{file: "retry-on-error.yaml", fails: true, programs: of("error-container", sh(`exit $((3 - {{retries}}))`))},
	{file: "retry-script.yaml", programs: of("retry-script", twoFailures)},
	{file: "retry-with-steps.yaml", large: true, programs: of("random-fail", sh(`exit $(( {{retries}} < 1 ))`))},
	{file: "scripts-bash.yaml", programs: of("gen-random-int", source("echo 42\n"))},
	{file: "scripts-javascript.yaml", programs: of("gen-random-int", probe("say", "42"))},
	{file: "scripts-python.yaml", programs: of("gen-random-int", probe("say", "42"))},
	{file: "secrets.yaml"},
	{file: "sidecar-nginx.yaml", programs: of("sidecar-nginx-example/nginx", httpServer)},
	{file: "status-reference.yaml"},
	{
		file:     "step-level-timeout.yaml",
		fails:    true,
		programs: of("sleep", sh(`sleep 300`)),
		edit: func(spec map[string]any) {
			for i := range 2 { // as above
				edited(spec, "templates", 0, "steps", 0, i, "arguments", "parameters", 0)["value"] = "45s"
			}
		},
		known: atDeadline,
	},
	{file: "steps-inline-workflow.yaml"},
	{file: "steps.yaml"},
	{file: "synchronization-mutex-wf-level.yaml"},
	{file: "synchronization-tmpl-level.yaml", large: true, programs: of("acquire-lock", sh(`sleep 1; echo acquired lock`))},
	{file: "synchronization-wf-level.yaml"},
	{file: "template-defaults.yaml", large: true, programs: of("retry-backoff", twoFailures)},
	{file: "template-on-exit.yaml", large: true},
	{
		file:     "timeouts-step.yaml",
		fails:    true,
		programs: of("sleep", sh(`echo 123; sleep 86400`)),
		// On a busy machine a pod may need longer than upstream's ten seconds to start.
		edit:  func(spec map[string]any) { edited(spec, "templates", 0)["activeDeadlineSeconds"] = int64(45) },
		known: atDeadline,
	},
	{
		file:     "timeouts-workflow.yaml",
		fails:    true,
		large:    true,
		programs: of("unschedulable", probe("say", "scheduled")),
		edit:     func(spec map[string]any) { spec["activeDeadlineSeconds"] = int64(60) },
		known:    atDeadline,
	},
	{file: "title-and-description-with-markdown.yaml"},
	{file: "volumes-emptydir.yaml"},
	{file: "withsequence-nested-result.yaml", large: true, programs: of("hello", probe("say", "2"))},
	{file: "workflow-template/hello-world.yaml", library: templateLibrary, own: inLibrary, programs: randomFail},
	{file: "workflow-template/retry-with-steps.yaml", large: true, library: templateLibrary, own: inLibrary, programs: randomFail},
	{file: "workflow-template/steps.yaml", large: true, library: templateLibrary, own: inLibrary, programs: randomFail},
	{file: "workflow-template/workflow-archive-logs.yaml"},
	{file: "workflow-template/workflow-template-ref.yaml", library: templateLibrary, own: inLibrary, programs: randomFail},
}

// What the examples in upstream's folder workflow-template refer to.
const templateLibrary = "workflow-template/templates.yaml"

var (
	inLibrary = []string{"workflow-template-print-message", "workflow-template-random-fail-template", "workflow-template-inner-steps",
		"workflow-template-inner-dag", "workflow-template-submittable"}
	randomFail = of("random-fail-template", sh(`exit $(( {{retries}} < 1 ))`))
)

// edited returns the map at the place in a specification.
func edited(value any, place ...any) map[string]any {
	for _, at := range place {
		switch at := at.(type) {
		case string:
			value = value.(map[string]any)[at]
		case int:
			value = value.([]any)[at]
		}
	}
	return value.(map[string]any)
}

// leftOutExamples are upstream's other examples in the same folder, by the reason why they are not run.
var leftOutExamples = []struct{ why, names string }{
	{"needs the internet", `arguments-artifacts buildkit-template ci ci-output-artifact ci-workflowtemplate exit-handler-slack
		fun-with-gifs influxdb-ci input-artifact-git input-artifact-http sidecar sidecar-dind`},
	{"needs a server that is not here: a database, another artifact store", `artifactory-artifact daemon-step dag-daemon-task
		hdfs-artifact input-artifact-azure input-artifact-gcs input-artifact-oss output-artifact-azure output-artifact-gcs
		synchronization-db-mutex-tmpl-level synchronization-db-mutex-wf-level synchronization-db-tmpl-level
		synchronization-db-wf-level webhdfs-input-output-artifacts`},
	{"has a template of kind `resource`, `data` or `http`", `cron-backfill data-transformations daemoned-stateful-set-with-service
		http-hello-world http-success-condition k8s-jobs k8s-orchestration k8s-owner-reference k8s-patch-json-pod
		k8s-patch-json-workflow k8s-patch-merge-pod k8s-patch-pod k8s-resource-log-selector k8s-set-owner-reference k8s-wait-wf
		life-cycle-hooks-tmpl-level life-cycle-hooks-wf-level resource-delete-with-flags resource-flags workflow-of-workflows`},
	{"needs a plugin", `artifact-passing-explicit-plugin`},
	{"needs Windows", `hello-hybrid hello-windows`},
	{"needs a provisioner of volumes, a pull secret, or more than the node has", `image-pull-secrets pod-spec-from-previous-step
		volumes-existing volumes-pvc work-avoidance`},
	{"waits for a person", `intermediate-parameters suspend-template suspend-template-outputs`},
	{"deletes itself or its artifacts, which the comparison needs", `artifact-gc-workflow gc-ttl`},
	{"takes minutes, or twelve pods and more", `colored-logs dag-nested dag-diamond-steps dag-task-level-timeout forever
		fibonacci-seq-conditional-param loops-sequence parallelism-limit parallelism-nested parallelism-nested-dag
		parallelism-nested-workflow parallelism-template-limit steps-daemon-retry-strategy synchronization-mutex-tmpl-level`},
	{"is random in its structure", `resubmit`},
	{"is no workflow, or the schedule of one that is run", `cron-when cron-workflow cron-workflow-multiple-schedules
		dag-inline-clusterworkflowtemplate dag-inline-cronworkflow testvolume workflow-count-resourcequota`},
}

// knownDifference is a difference that is no failure.
type knownDifference struct {
	key     *regexp.Regexp // of the values that differ
	ignored *regexp.Regexp // what may differ in the values; nil is all of it
	why     string         // a sentence
}

// everywhere are the differences of all examples.
var everywhere = []knownDifference{{
	regexp.MustCompile(`^object `), regexp.MustCompile(`mode 6[46][46]`),
	"A Wasm guest's new files have the mode 0666, because WASI has no modes; the native probe asks for 0644.",
}}

// atDeadline are the differences of pods that reach their deadline. Their own phases and their nodes' must be the same.
var atDeadline = []knownDifference{{
	regexp.MustCompile(`^node .*( message|outputs exitCode)$|container (main|wait)$|^result `), nil,
	"The kubelet, `wait` and the controller end the pod at the same moment. Who is first decides about exit codes and messages.",
}}

// why returns the reason for a known difference, empty if there is none.
func (e upstreamExample) why(key string, traces []trace) string {
	for _, known := range slices.Concat(e.known, everywhere) {
		if !known.key.MatchString(key) {
			continue
		}
		rest := map[string]bool{}
		for _, left := range traces {
			if known.ignored != nil {
				rest[known.ignored.ReplaceAllString(left.show(key), "")] = true
			}
		}
		if len(rest) <= 1 {
			return known.why
		}
	}
	return ""
}

// row is a line of the table in docs/argo.md.
type row struct {
	name, phase        string
	pods, wasm, native int
	containers         []string // ids, of the third way
	result             string
}

const (
	tableBegin = "<!-- upstream's examples: written by make e2e-examples -->\n"
	tableEnd   = "<!-- end of upstream's examples -->\n"
)

// table returns the tables of what is run and of what is left out. Examples that were not run keep their old rows.
func table(rows []row, old string) string {
	var text strings.Builder
	text.WriteString("| example | ended | pods | containers: Wasm, native | three ways |\n| --- | --- | --- | --- | --- |\n")
	for _, r := range rows {
		beginning := "| " + r.name + " |"
		if at := strings.Index(old, "\n"+beginning); r.result == "" && at >= 0 {
			line, _, _ := strings.Cut(old[at+1:], "\n")
			text.WriteString(line + "\n")
			continue
		}
		fmt.Fprintf(&text, "| %s | %s | %d | %d, %d | %s |\n", r.name, r.phase, r.pods, r.wasm, r.native, r.result)
	}
	text.WriteString("\n| left out | |\n| --- | --- |\n")
	for _, kind := range leftOutExamples {
		fmt.Fprintf(&text, "| %s | %d |\n", kind.why, len(strings.Fields(kind.names)))
	}
	return text.String()
}

// checkTable writes the rows of what was run into docs/argo.md, or checks that the page has all rows.
func checkTable(t testing.TB, rows []row) {
	t.Helper()
	root, err := repo.Root()
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(root, "docs", "argo.md")
	page, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, hasBegin := strings.Cut(string(page), tableBegin)
	old, after, hasEnd := strings.Cut(rest, tableEnd)
	if !hasBegin || !hasEnd {
		t.Fatalf("%s has no place for the table", file)
	}
	text := table(rows, old)
	t.Log("\n" + text)
	if *upstreamAll {
		if err := os.WriteFile(file, []byte(before+tableBegin+text+tableEnd+after), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if got, want := firstCells(old), firstCells(text); !slices.Equal(got, want) {
		t.Errorf("%s has the rows\n%q\nwant\n%q\nwrite them with make e2e-examples ALL=1", file, got, want)
	}
}

// firstCells returns the first cell of each row of tables.
func firstCells(tables string) []string {
	var cells []string
	for line := range strings.Lines(tables) {
		if cell, _, found := strings.Cut(strings.TrimPrefix(line, "| "), " |"); found {
			cells = append(cells, cell)
		}
	}
	return cells
}

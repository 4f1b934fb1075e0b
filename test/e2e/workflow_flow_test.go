package e2e

import (
	"strings"
	"testing"
)

func TestWorkflowParameters(t *testing.T) {
	sameAsNative(t, `
entrypoint: main
arguments:
  parameters: [{name: greeting, value: "grüße, world"}]
templates:
- name: main
  steps:
  - - name: write
      template: write
      arguments: {parameters: [{name: text, value: "{{workflow.parameters.greeting}}"}]}
  - - name: read
      template: write
      arguments: {parameters: [{name: text, value: "{{steps.write.outputs.parameters.file}}, {{workflow.outputs.parameters.everywhere}}"}]}
- name: write
  inputs: {parameters: [{name: text}]}
  container: {image: $IMAGE, command: [$PROBE], args: [write, /tmp/file, "{{inputs.parameters.text}}", ",", mkdir, /tmp/below, ",", write, /tmp/below/two, "line 1\nline 2\n"]}
  outputs:
    parameters:
    - {name: file, valueFrom: {path: /tmp/file}}
    - {name: two, globalName: everywhere, valueFrom: {path: /tmp/below/two}}
    - {name: missing, valueFrom: {path: /tmp/missing, default: "the default"}}
`, func(t *testing.T, w workflow) {
		w.is(t, "Succeeded")
		written := w.node(t, "[0].write")
		equal(t, "a parameter", written.parameter(t, "file"), "grüße, world")
		equal(t, "one in a folder", written.parameter(t, "two"), "line 1\nline 2")
		equal(t, "a missing one", written.parameter(t, "missing"), "the default")
		equal(t, "what the second step got", w.node(t, "[1].read").parameter(t, "file"), "grüße, world, line 1\nline 2")
	})
}

// A parameter whose file is missing and that has no default fails the step, though the program has succeeded.
func TestWorkflowMissingOutput(t *testing.T) {
	sameAsNative(t, `
entrypoint: main
templates:
- name: main
  container: {image: $IMAGE, command: [$PROBE], args: [say, done]}
  outputs: {parameters: [{name: missing, valueFrom: {path: /tmp/missing}}]}
`, func(t *testing.T, w workflow) { w.is(t, "Error") })
}

func TestWorkflowScript(t *testing.T) {
	sameAsNative(t, `
entrypoint: main
templates:
- name: main
  steps:
  - - {name: script, template: script}
  - - name: equal
      template: script
      when: "{{steps.script.outputs.result}} == source"
    - name: different
      template: script
      when: "{{steps.script.outputs.result}} != source"
- name: script
  script: {image: $IMAGE, command: [$PROBE, read], source: "source"}
`, func(t *testing.T, w workflow) {
		w.is(t, "Succeeded")
		w.node(t, "[1].equal").is(t, "Succeeded", "0")
		w.node(t, "[1].different").is(t, "Skipped", "")
		equal(t, "the result", w.node(t, "[0].script").result(), "source")
	})
}

// The guest's environment is the container's, with the variables that Argo adds.
func TestWorkflowEnvironment(t *testing.T) {
	sameAsNative(t, `
entrypoint: main
templates:
- name: main
  container:
    image: $IMAGE
    command: [$PROBE]
    args: [env]
    env: [{name: TRACEPARENT, value: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01}]
`, func(t *testing.T, w workflow) {
		w.is(t, "Succeeded")
		env := w.argo.logsOf(t, w, "")
		for _, want := range []string{
			"TRACEPARENT=00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\n", "ARGO_CONTAINER_NAME=main\n", "ARGO_NODE_ID=" + w.GetName() + "\n",
		} {
			if !strings.Contains(env, want) {
				t.Errorf("the environment lacks %q:\n%s", want, env)
			}
		}
	})
}

func TestWorkflowExitCode(t *testing.T) {
	sameAsNative(t, `
entrypoint: main
onExit: handler
templates:
- name: main
  container: {image: $IMAGE, command: [$PROBE], args: [exit, "42"]}
- name: handler
  container: {image: $IMAGE, command: [$PROBE], args: [write, /tmp/status, "{{workflow.status}} {{workflow.failures}}"]}
  outputs: {parameters: [{name: status, valueFrom: {path: /tmp/status}}]}
`, func(t *testing.T, w workflow) {
		w.is(t, "Failed")
		w.node(t, "").is(t, "Failed", "42")
		status := w.node(t, "onExit").is(t, "Succeeded", "0").parameter(t, "status")
		if !strings.HasPrefix(status, "Failed ") || !strings.Contains(status, "exit code 42") {
			t.Errorf("the exit handler was told %q", status)
		}
	})
}

// A trap has an exit code of its own, and the log has its reason.
func TestWorkflowTrap(t *testing.T) {
	eachArgo(t, func(t *testing.T, a *argo) {
		w := a.run(t, asWasm.workflow(t, `
entrypoint: main
templates:
- name: main
  container: {image: $IMAGE, command: [$PROBE], args: [trap]}
`)).is(t, "Failed")
		w.node(t, "").is(t, "Failed", "134")
		if text := a.logsOf(t, w, ""); !strings.Contains(text, "unreachable") {
			t.Errorf("its log does not say why: %q", text)
		}
	})
}

// If a module cannot be run, the node's message has the reason, and nothing waits for it.
func TestWorkflowCannotRun(t *testing.T) {
	eachArgo(t, func(t *testing.T, a *argo) {
		w := a.run(t, asWasm.workflow(t, `
entrypoint: main
templates:
- name: main
  container: {image: $IMAGE, command: ["$PROBE#nonesuch"]}
`)).is(t, "Failed")
		if message := w.node(t, "").Message; !strings.Contains(message, `exports no function "nonesuch"`) {
			t.Errorf("the node says %q", message)
		}
	})
}

func TestWorkflowContinueOn(t *testing.T) {
	sameAsNative(t, `
entrypoint: main
templates:
- name: main
  steps:
  - - {name: fails, template: fail, continueOn: {failed: true}}
  - - name: after
      template: say
      arguments: {parameters: [{name: text, value: "{{steps.fails.status}} {{steps.fails.exitCode}}"}]}
- name: fail
  container: {image: $IMAGE, command: [$PROBE], args: [exit, "7"]}
- name: say
  inputs: {parameters: [{name: text}]}
  container: {image: $IMAGE, command: [$PROBE], args: [write, /tmp/said, "{{inputs.parameters.text}}"]}
  outputs: {parameters: [{name: said, valueFrom: {path: /tmp/said}}]}
`, func(t *testing.T, w workflow) {
		w.is(t, "Succeeded")
		w.node(t, "[0].fails").is(t, "Failed", "7")
		equal(t, "what the next step knew", w.node(t, "[1].after").parameter(t, "said"), "Failed 7")
	})
}

func TestWorkflowRetries(t *testing.T) {
	sameAsNative(t, `
entrypoint: main
templates:
- name: main
  steps:
  - - {name: third-time, template: third-time}
    - {name: never, template: never, continueOn: {failed: true}}
    - {name: not-for-5, template: not-for-5, continueOn: {failed: true}}
- name: third-time
  retryStrategy: {limit: 3}
  container: {image: $IMAGE, command: [$PROBE], args: [exit, "{{=asInt(retries) < 2 ? '3' : '0'}}"]}
- name: never
  retryStrategy: {limit: 1, backoff: {duration: "1", factor: 2}}
  container: {image: $IMAGE, command: [$PROBE], args: [exit, "4"]}
- name: not-for-5
  retryStrategy: {limit: 3, expression: "asInt(lastRetry.exitCode) != 5"}
  container: {image: $IMAGE, command: [$PROBE], args: [exit, "5"]}
`, func(t *testing.T, w workflow) {
		w.is(t, "Succeeded")
		w.node(t, "[0].third-time(0)").is(t, "Failed", "3")
		w.node(t, "[0].third-time(2)").is(t, "Succeeded", "0")
		w.node(t, "[0].never").is(t, "Failed", "4")
		w.node(t, "[0].never(1)").is(t, "Failed", "4")
		w.node(t, "[0].not-for-5(0)").is(t, "Failed", "5")
		if _, again := w.nodes(t)["[0].not-for-5(1)"]; again {
			t.Error("it was retried against its expression")
		}
	})
}

func TestWorkflowLoops(t *testing.T) {
	sameAsNative(t, `
entrypoint: main
templates:
- name: main
  steps:
  - - name: items
      template: say
      arguments: {parameters: [{name: text, value: "{{item}}"}]}
      withItems: [one, two]
  - - name: list
      template: say
      arguments: {parameters: [{name: text, value: '["a","b"]'}]}
  - - name: param
      template: say
      arguments: {parameters: [{name: text, value: "{{item}} {{steps.items.outputs.parameters.said}}"}]}
      withParam: "{{steps.list.outputs.result}}"
- name: say
  inputs: {parameters: [{name: text}]}
  container: {image: $IMAGE, command: [$PROBE], args: [write, /tmp/said, "{{inputs.parameters.text}}", ",", say, "{{inputs.parameters.text}}"]}
  outputs: {parameters: [{name: said, valueFrom: {path: /tmp/said}}]}
`, func(t *testing.T, w workflow) {
		w.is(t, "Succeeded")
		equal(t, "the second item's parameter", w.node(t, "[0].items(1:two)").parameter(t, "said"), "two")
		equal(t, "the second element's", w.node(t, "[2].param(1:b)").parameter(t, "said"), `b ["one","two"]`)
	})
}

func TestWorkflowDAG(t *testing.T) {
	sameAsNative(t, `
entrypoint: main
templates:
- name: main
  dag:
    tasks:
    - {name: a, template: say, arguments: {parameters: [{name: text, value: a}]}}
    - {name: b, template: say, depends: a, arguments: {parameters: [{name: text, value: "{{tasks.a.outputs.parameters.said}}b"}]}}
    - {name: c, template: fail, depends: a}
    - {name: d, template: say, depends: "b && c.Failed", arguments: {parameters: [{name: text, value: "{{tasks.b.outputs.parameters.said}}d"}]}}
- name: say
  inputs: {parameters: [{name: text}]}
  container: {image: $IMAGE, command: [$PROBE], args: [write, /tmp/said, "{{inputs.parameters.text}}"]}
  outputs: {parameters: [{name: said, valueFrom: {path: /tmp/said}}]}
- name: fail
  container: {image: $IMAGE, command: [$PROBE], args: [exit, "1"]}
`, func(t *testing.T, w workflow) {
		w.is(t, "Succeeded")
		w.node(t, "c").is(t, "Failed", "1")
		equal(t, "the last one's parameter", w.node(t, "d").parameter(t, "said"), "abd")
	})
}

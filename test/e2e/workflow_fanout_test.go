package e2e

import (
	"fmt"
	"testing"
)

// A hundred steps at once, on one version of Argo after the other. With that many pods, a small machine may
// take longer to start Argo's wait container than to run main. The controller then kills wait, in native pods
// too (docs/argo.md). That is not what this test checks: such a step is retried, as the page advises. Any other
// failure fails the test.
func TestWorkflowFanOut(t *testing.T) {
	for _, version := range cluster.ArgoVersions() {
		t.Run(version, func(t *testing.T) {
			w := argoVersion(version).run(t, asWasm.workflow(t, `
entrypoint: main
parallelism: 20
templates:
- name: main
  steps:
  - - name: many
      template: one
      arguments: {parameters: [{name: number, value: "{{item}}"}]}
      withSequence: {count: "100"}
- name: one
  retryStrategy: {limit: 5, retryPolicy: OnError}
  inputs: {parameters: [{name: number}]}
  container: {image: $IMAGE, command: [$PROBE], args: [write, /tmp/number, "{{inputs.parameters.number}}"]}
  outputs: {parameters: [{name: number, valueFrom: {path: /tmp/number}}]}
`)).is(t, "Succeeded")
			nodes := w.nodes(t)
			for _, n := range nodes {
				if n.Type == "Pod" && n.Phase != "Succeeded" && n.Message != "wait: Error (exit code 2)" {
					t.Errorf("a try of %s is %s: %s", n.Name, n.Phase, n.Message)
				}
			}
			for i := range 100 {
				n := nodes[fmt.Sprintf("[0].many(%d:%d)", i, i)]
				equal(t, "the number of pod "+n.Name, n.parameter(t, "number"), fmt.Sprint(i))
			}
		})
	}
}

package e2e

import (
	"context"
	"testing"

	"github.com/wasmshim/containerd-shim-wasm/internal/testcluster"
)

// Tests of this file disturb all pods of the node: they do not run in parallel with others.

// untilTold is a workflow whose guest ends when a file appears on the node. Argo retries every failure but the
// guest's own.
func untilTold(t *testing.T, folder string) *anyObject {
	return asWasm.workflow(t, `
entrypoint: main
templates:
- name: main
  retryStrategy: {limit: 2, retryPolicy: Always}
  volumes: [{name: node, hostPath: {path: `+folder+`}}]
  container:
    image: $IMAGE
    command: [$PROBE]
    args: [say, waiting, ",", await, /node/go, ",", write, /tmp/out, through]
    volumeMounts: [{name: node, mountPath: /node}]
  outputs: {parameters: [{name: out, valueFrom: {path: /tmp/out}}]}
`)
}

// disturbed runs a workflow on each version of Argo, disturbs them, lets their guests go on and checks that they
// succeed after that number of tries.
func disturbed(t *testing.T, tries int, disturb func(t *testing.T, running []workflow)) {
	t.Helper()
	there, here := onNode(t)
	var running []workflow
	for _, version := range cluster.ArgoVersions() {
		running = append(running, argoVersion(version).submit(t, untilTold(t, there)))
	}
	for i, w := range running {
		running[i] = w.says(t, "(0)", "waiting")
	}
	disturb(t, running)
	put(t, "", here, "go")
	for _, w := range running {
		w = w.ended(t).is(t, "Succeeded")
		equal(t, "the parameter", w.node(t, "").parameter(t, "out"), "through")
		if got := len(w.argo.pods(t, w)); got != tries {
			t.Errorf("it took %d tries, want %d:\n%s", got, tries, w.summary())
		}
	}
}

// Guests survive restarts of the node's services.
func TestWorkflowNodeRestarts(t *testing.T) {
	for name, c := range map[string]struct {
		part string
		end  func(ctx context.Context, part string) error
	}{
		"kubelet-restarted":    {testcluster.Kubelet, cluster.Terminate},
		"kubelet-killed":       {testcluster.Kubelet, cluster.Kill9},
		"containerd-restarted": {testcluster.Containerd, cluster.Terminate},
		"containerd-killed":    {testcluster.Containerd, cluster.Kill9},
	} {
		t.Run(name, func(t *testing.T) {
			disturbed(t, 1, func(t *testing.T, _ []workflow) {
				if err := c.end(t.Context(), c.part); err != nil {
					t.Fatal(err)
				}
				if err := cluster.Start(t.Context(), c.part); err != nil {
					t.Fatal(err)
				}
			})
		})
	}
}

// When the shims of a workflow's pod die, its containers die too: the step fails with that reason and is retried. If
// only our shim has died, Argo's wait container survives and sees the end of main.
func TestWorkflowShimKilled(t *testing.T) {
	for name, shims := range map[string][]string{"all": nil, "ours": {"containerd-shim-wasm-v1"}} {
		t.Run(name, func(t *testing.T) {
			disturbed(t, 2, func(t *testing.T, running []workflow) {
				for _, w := range running {
					killShims(t, w.argo.pod(t, w, "(0)"), shims...)
				}
				for _, w := range running {
					w = w.until(t, "has lost its first try", func(w workflow) bool { return w.has("(0)", "Failed") || w.has("(0)", "Error") })
					if n := w.node(t, "(0)"); n.Message == "" {
						t.Errorf("the node does not say why it is %s", n.Phase)
					}
				}
			})
		})
	}
}

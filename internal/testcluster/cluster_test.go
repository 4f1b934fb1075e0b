package testcluster

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/wasmshim/containerd-shim-wasm/internal/testguest"
)

const within = 5 * time.Minute

// up returns the cluster and brings it up if necessary; it stays up for other
// tests.
func up(t *testing.T) *Cluster {
	t.Helper()
	c, err := Up(t.Context(), Options{}, t.Output())
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// namespace makes a namespace. The end of the test deletes it and waits until it is
// gone.
func namespace(t *testing.T, c *Cluster, name string) {
	t.Helper()
	kubectl(t, c, "create", "namespace", name)
	t.Cleanup(func() {
		if _, err := c.Kubectl(context.Background(), "delete", "namespace", name, "--timeout", within.String()); err != nil {
			t.Error(err)
		}
	})
	kubectl(t, c, "-n", name, "wait", "--for=create", "serviceaccount/default", "--timeout", within.String())
}

func kubectl(t *testing.T, c *Cluster, args ...string) string {
	t.Helper()
	text, err := c.Kubectl(t.Context(), args...)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func apply(t *testing.T, c *Cluster, namespace, manifest string) {
	t.Helper()
	if _, err := c.KubectlWith(t.Context(), strings.NewReader(manifest), "-n", namespace, "create", "-f", "-"); err != nil {
		t.Fatal(err)
	}
}

func TestPods(t *testing.T) {
	c := up(t)
	before, err := c.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		left, err := c.Leaks(context.Background(), before)
		if err != nil {
			t.Error(err)
		}
		for _, thing := range left {
			t.Errorf("left behind: %s", thing)
		}
	})
	const wasm, native = "example.com/testcluster/wasm:1", "example.com/testcluster/native:1"
	importTo(t, c, wasm, func() (testguest.ImageOpts, error) { return testguest.WasmImage("hello-c") })
	importTo(t, c, native, testguest.BusyboxImage)
	namespace(t, c, "testcluster-pods")

	apply(t, c, "testcluster-pods", fmt.Sprintf(`
apiVersion: v1
kind: Pod
metadata: {name: wasm}
spec:
  runtimeClassName: wasm
  restartPolicy: Never
  containers: [{name: main, image: %q}]
---
apiVersion: v1
kind: Pod
metadata: {name: native}
spec:
  terminationGracePeriodSeconds: 0
  containers: [{name: main, image: %q, command: [sh, -c, "echo ready; exec sleep 3600"]}]
`, wasm, native))
	in := []string{"-n", "testcluster-pods"}
	kubectl(t, c, append(in, "wait", "pod/wasm", "--for=jsonpath={.status.phase}=Succeeded", "--timeout", within.String())...)
	if got := kubectl(t, c, append(in, "logs", "wasm")...); got != "hello from C\n" {
		t.Errorf("the log of the Wasm pod is %q", got)
	}
	kubectl(t, c, append(in, "wait", "pod/native", "--for=condition=Ready", "--timeout", within.String())...)
	if got := kubectl(t, c, append(in, "exec", "native", "--", "/hello")...); got != "hello from native C\n" {
		t.Errorf("the exec printed %q", got)
	}
	// A pod reaches the API server and the S3 server by their addresses.
	kubectl(t, c, append(in, "exec", "native", "--", "sh", "-c", "echo | nc -w 10 "+apiIP+" 443")...)
	kubectl(t, c, append(in, "exec", "native", "--", "wget", "-q", "-O", "-", s3URL+s3Health)...)
}

func importTo(t *testing.T, c *Cluster, ref string, image func() (testguest.ImageOpts, error)) {
	t.Helper()
	opts, err := image()
	if err == nil {
		err = c.ImportImage(t.Context(), ref, opts)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func TestArgo(t *testing.T) {
	c := up(t)
	const image = "example.com/testcluster/native:1"
	importTo(t, c, image, testguest.BusyboxImage)
	for _, version := range c.ArgoVersions() {
		t.Run(version, func(t *testing.T) {
			namespace := Argo(version).Workflows
			apply(t, c, namespace, fmt.Sprintf(`
apiVersion: argoproj.io/v1alpha1
kind: Workflow
metadata: {name: testcluster}
spec:
  entrypoint: main
  templates:
  - name: main
    container: {image: %q, command: [sh, -c], args: ["echo 42 > /tmp/out"]}
    outputs:
      parameters: [{name: answer, valueFrom: {path: /tmp/out}}]
      artifacts: [{name: out, path: /tmp/out, archive: {none: {}}, s3: {key: testcluster-%s}}]
`, image, version))
			t.Cleanup(func() {
				if _, err := c.Kubectl(context.Background(), "-n", namespace, "delete", "workflow", "testcluster"); err != nil {
					t.Error(err)
				}
			})
			in := []string{"-n", namespace}
			kubectl(t, c, append(in, "wait", "workflow/testcluster", "--for=jsonpath={.status.phase}=Succeeded", "--timeout", within.String())...)
			got := kubectl(t, c, append(in, "get", "workflow/testcluster", "-o", "jsonpath={.status.nodes.testcluster.outputs.parameters[0].value}")...)
			if got != "42" {
				t.Errorf("the output parameter is %q", got)
			}
			stored, err := os.ReadFile(c.S3().Dir + "/testcluster-" + version)
			if err != nil || string(stored) != "42\n" {
				t.Errorf("the artifact holds %q (%v)", stored, err)
			}
		})
	}
}

// A part that is killed is down. A second Up starts that part again and no other.
func TestRepair(t *testing.T) {
	c := up(t)
	pids := map[string]int{}
	for _, part := range c.Status() {
		pids[part.Name] = part.PID
	}
	for _, name := range []string{Scheduler, Kubelet, Containerd} {
		if err := c.Kill9(t.Context(), name); err != nil {
			t.Fatal(err)
		}
		if pid := c.PID(name); pid != 0 {
			t.Errorf("%s has pid %d after it was killed", name, pid)
		}
	}
	for _, part := range up(t).Status() {
		switch part.Name {
		case Scheduler, Kubelet, Containerd:
			if part.PID == 0 || part.PID == pids[part.Name] {
				t.Errorf("%s had pid %d and has %d", part.Name, pids[part.Name], part.PID)
			}
		default:
			if part.PID != pids[part.Name] {
				t.Errorf("%s had pid %d and has %d, but nobody touched it", part.Name, pids[part.Name], part.PID)
			}
		}
	}
}

// The machine does not see the node's network, mounts and folders.
func TestSeparation(t *testing.T) {
	c := up(t)
	addresses, err := exec.Command("ip", "address").Output()
	if err != nil {
		t.Fatal(err)
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	for _, sign := range []string{apiIP, nodeIP, "cni0"} {
		if strings.Contains(string(addresses), sign) {
			t.Errorf("the machine's network shows %s:\n%s", sign, addresses)
		}
	}
	if strings.Contains(string(mounts), c.dir) || strings.Contains(string(mounts), "/var/lib/kubelet") {
		t.Errorf("the machine has mounts of the cluster:\n%s", mounts)
	}
}

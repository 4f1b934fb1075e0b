package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/wasmshim/containerd-shim-wasm/internal/testguest"
	"github.com/wasmshim/containerd-shim-wasm/internal/testimage"
)

// packages are the probe in images without files, by the format's name. The tests of package test run all
// formats; these are the ones that may be difficult for Kubernetes and Argo.
var packages = map[string]string{
	"layer-application-wasm": "example.com/e2e/layer:1",
	"artifact-oras":          "example.com/e2e/artifact:1",
	"artifact-wkg":           "example.com/e2e/component:1", // the probe as a component
}

func importPackages(ctx context.Context) error {
	module, err := testguest.File("probe")
	if err != nil {
		return err
	}
	component, err := testguest.Component(module)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "e2e-")
	if err != nil {
		return err
	}
	for format, ref := range packages {
		err = errors.Join(err, importPackage(ctx, filepath.Join(dir, "image.tar"), format, ref, module, component))
	}
	return errors.Join(err, os.RemoveAll(dir))
}

func importPackage(ctx context.Context, path, format, ref, module, component string) error {
	f, ok := testimage.Named(format)
	if !ok {
		return fmt.Errorf("there is no format %s", format)
	}
	guest := module
	if f.Component {
		guest = component
	}
	probe, err := os.ReadFile(guest)
	if err != nil {
		return err
	}
	if err := f.Build(probe).WriteTar(path, ref); err != nil {
		return err
	}
	tar, err := os.Open(path)
	if err != nil {
		return err
	}
	defer tar.Close()
	// Neither has files to unpack, and neither has the node's platform.
	return cluster.ImportFrom(ctx, tar, "--all-platforms", "--no-unpack")
}

// A kubelet runs a module that is a layer of an image, a module that is an artifact, and a component.
func TestPodPackages(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	for format, ref := range packages {
		t.Run(format, func(t *testing.T) {
			t.Parallel()
			pod := asWasm.pod(t)
			pod.Spec.Containers[0].Image = ref
			pod.Spec.Containers[0].Command = []string{"app.wasm"}
			pod.Spec.Containers[0].Args = []string{"say", "done"}
			s.succeeds(t, pod, "done\n")
		})
	}
}

// Argo runs them too, with outputs.
func TestWorkflowPackages(t *testing.T) {
	eachArgo(t, func(t *testing.T, a *argo) {
		w := a.run(t, asWasm.workflow(t, `
entrypoint: main
templates:
- name: main
  steps:
  - - {name: layer, template: layer}
    - {name: artifact, template: artifact}
    - {name: component, template: component}
- name: layer
  container: {image: "`+packages["layer-application-wasm"]+`", command: [app.wasm], args: [write, /file, from a layer]}
  outputs: {parameters: [{name: file, valueFrom: {path: /file}}]}
- name: artifact
  container: {image: "`+packages["artifact-oras"]+`", command: [app.wasm], args: [write, /file, from an artifact]}
  outputs: {parameters: [{name: file, valueFrom: {path: /file}}]}
- name: component
  container: {image: "`+packages["artifact-wkg"]+`", command: [app.wasm], args: [write, /file, from a component]}
  outputs: {parameters: [{name: file, valueFrom: {path: /file}}]}
`))
		w.is(t, "Succeeded")
		equal(t, "the layer's output", w.node(t, "[0].layer").parameter(t, "file"), "from a layer")
		equal(t, "the artifact's output", w.node(t, "[0].artifact").parameter(t, "file"), "from an artifact")
		equal(t, "the component's output", w.node(t, "[0].component").parameter(t, "file"), "from a component")
	})
}

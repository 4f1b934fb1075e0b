// Package deploy holds what is applied to a cluster; its only code is the tests of that.
package deploy

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"testing"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	nodev1 "k8s.io/api/node/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/yaml"

	"github.com/wasmshim/containerd-shim-wasm/install"
	"github.com/wasmshim/containerd-shim-wasm/install/incluster"
)

// documents returns the objects of a file, as text.
func documents(t *testing.T, path string) [][]byte {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	reader := utilyaml.NewDocumentDecoder(io.NopCloser(bytes.NewReader(text)))
	defer reader.Close()
	var all [][]byte
	for {
		buffer := make([]byte, len(text)+1)
		n, err := reader.Read(buffer)
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		if document := buffer[:n]; len(bytes.TrimSpace(stripComments(document))) > 0 {
			all = append(all, document)
		}
	}
}

func stripComments(text []byte) []byte {
	var kept [][]byte
	for line := range bytes.Lines(text) {
		if !bytes.HasPrefix(bytes.TrimSpace(line), []byte("#")) && !bytes.HasPrefix(line, []byte("---")) {
			kept = append(kept, line)
		}
	}
	return bytes.Join(kept, nil)
}

// load reads an object strictly: no unknown fields, no field twice.
func load[T any](t *testing.T, document []byte) T {
	t.Helper()
	var object T
	if err := yaml.UnmarshalStrict(document, &object); err != nil {
		t.Fatalf("%v in\n%s", err, document)
	}
	return object
}

// kinds are what the manifests may hold.
var kinds = map[string]func(t *testing.T, document []byte){
	"Namespace":                        check[corev1.Namespace],
	"ServiceAccount":                   check[corev1.ServiceAccount],
	"Role":                             check[rbacv1.Role],
	"RoleBinding":                      check[rbacv1.RoleBinding],
	"ClusterRole":                      check[rbacv1.ClusterRole],
	"ClusterRoleBinding":               check[rbacv1.ClusterRoleBinding],
	"DaemonSet":                        check[appsv1.DaemonSet],
	"RuntimeClass":                     check[nodev1.RuntimeClass],
	"ValidatingAdmissionPolicy":        check[admissionv1.ValidatingAdmissionPolicy],
	"ValidatingAdmissionPolicyBinding": check[admissionv1.ValidatingAdmissionPolicyBinding],
}

func check[T any](t *testing.T, document []byte) { load[T](t, document) }

type header struct {
	Kind string `json:"kind"`
}

func TestManifests(t *testing.T) {
	for _, dir := range []string{".", "node-installer"} {
		listed := load[struct {
			APIVersion string   `json:"apiVersion"`
			Kind       string   `json:"kind"`
			Resources  []string `json:"resources"`
			Images     []any    `json:"images"`
		}](t, documents(t, filepath.Join(dir, "kustomization.yaml"))[0]).Resources
		files, err := filepath.Glob(filepath.Join(dir, "*.yaml"))
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			if filepath.Base(file) == "kustomization.yaml" {
				continue
			}
			if !slices.Contains(listed, filepath.Base(file)) {
				t.Errorf("%s is not in the kustomization", file)
			}
			for _, document := range documents(t, file) {
				var h header
				if err := yaml.Unmarshal(document, &h); err != nil {
					t.Fatal(err)
				}
				if kinds[h.Kind] == nil {
					t.Fatalf("%s: kind %q", file, h.Kind)
				}
				kinds[h.Kind](t, document)
			}
		}
		for _, name := range listed {
			if _, err := os.Stat(filepath.Join(dir, name)); err != nil {
				t.Error(err)
			}
		}
	}
}

// The RuntimeClass leads where the installer has been, to the runtime that it installs.
func TestRuntimeClass(t *testing.T) {
	class := load[nodev1.RuntimeClass](t, documents(t, "runtimeclass.yaml")[0])
	if class.Handler != install.Handler {
		t.Errorf("the handler is %q, containerd knows %q", class.Handler, install.Handler)
	}
	if got := class.Scheduling.NodeSelector; len(got) != 1 || got[incluster.Label] != "true" {
		t.Errorf("it selects %v, the installer sets %s", got, incluster.Label)
	}
	if class.Overhead.PodFixed.Memory().IsZero() {
		t.Error("a pod takes no memory")
	}
}

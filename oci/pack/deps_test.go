package pack_test

import (
	"os/exec"
	"strings"
	"testing"
)

// The packer only makes images: it neither speaks to containerd nor inspects existing images.
func TestDependencies(t *testing.T) {
	output, err := exec.CommandContext(t.Context(), "go", "list", "-deps", ".").Output()
	if err != nil {
		t.Fatal(err)
	}
	for dependency := range strings.FieldsSeq(string(output)) {
		for _, no := range []string{"google.golang.org/grpc", "github.com/containerd/containerd/", "containerd-shim-wasm/oci/inspect", "containerd-shim-wasm/oci/store"} {
			if strings.Contains(dependency, no) {
				t.Errorf("it depends on %s", dependency)
			}
		}
	}
}

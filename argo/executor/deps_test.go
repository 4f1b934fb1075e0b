package executor

import (
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// The daemon asks this package about what people write: it must not be able to speak to anybody because of it.
func TestNoNetwork(t *testing.T) {
	list, err := exec.CommandContext(t.Context(), "go", "list", "-deps", ".").Output()
	if err != nil {
		t.Fatal(err)
	}
	packages := strings.Fields(string(list))
	for _, name := range []string{"net", "net/http", "github.com/minio/minio-go/v7"} {
		if slices.Contains(packages, name) {
			t.Errorf("package %s is linked", name)
		}
	}
}

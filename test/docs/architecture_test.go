package docs

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// mapped finds the packages on the map: the first column of its last table.
var mapped = regexp.MustCompile(`(?m)^\| \[([a-z0-9/-]+)\]\(\.\./`)

// docs/architecture.md has a line for each package, except those that only tests and builds use.
func TestEveryPackageIsOnTheMap(t *testing.T) {
	root := treeRoot(t)
	page, err := os.ReadFile(filepath.Join(root, "docs", "architecture.md"))
	if err != nil {
		t.Fatal(err)
	}
	onMap := map[string]bool{}
	for _, match := range mapped.FindAllStringSubmatch(string(page), -1) {
		onMap[match[1]] = true
	}
	packages := shippedInternals(t, root)
	walk(t, root, ".go", func(file, _ string) {
		dir, err := filepath.Rel(root, filepath.Dir(file))
		if err != nil {
			t.Fatal(err)
		}
		if !strings.HasSuffix(file, "_test.go") && isShipped(dir) {
			packages[filepath.ToSlash(dir)] = true
		}
	})
	for name := range packages {
		if !onMap[name] {
			t.Errorf("docs/architecture.md has no line for package %s", name)
		}
	}
	for name := range onMap {
		if !packages[name] {
			t.Errorf("docs/architecture.md has a line for %s, which is no package", name)
		}
	}
}

// shippedInternals are the packages below internal that a program of cmd imports.
func shippedInternals(t *testing.T, root string) map[string]bool {
	t.Helper()
	// With -e the list is complete even before make build has made the programs that one embeds.
	list := exec.Command("go", "list", "-e", "-deps", "./cmd/...")
	list.Dir = root
	output, err := list.Output()
	if err != nil {
		t.Fatal(err)
	}
	packages := map[string]bool{}
	for _, path := range strings.Fields(string(output)) {
		if _, name, ok := strings.Cut(path, "/containerd-shim-wasm/internal/"); ok {
			packages["internal/"+name] = true
		}
	}
	return packages
}

// isShipped reports whether a folder outside of internal holds a package that the map must name.
func isShipped(dir string) bool {
	top, _, _ := strings.Cut(filepath.ToSlash(dir), "/")
	switch top {
	case "internal", "hack", "test", "examples":
		return false
	}
	return !strings.Contains(dir, "testdata")
}

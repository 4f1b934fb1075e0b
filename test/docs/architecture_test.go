package docs

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// mapped finds the packages on the map: the first column of its last table.
var mapped = regexp.MustCompile(`(?m)^\| \[([a-z0-9/-]+)\]\(\.\./`)

// docs/architecture.md has a line for each package, but for those that only tests and builds use.
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
	packages := map[string]bool{}
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

func isShipped(dir string) bool {
	top, _, _ := strings.Cut(filepath.ToSlash(dir), "/")
	switch top {
	case "internal", "hack", "test", "examples":
		return false
	}
	return !strings.Contains(dir, "testdata")
}

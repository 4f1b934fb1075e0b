// Package docs holds the documentation to the source tree. It holds no code that is shipped.
package docs

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/wasmshim/containerd-shim-wasm/internal/repo"
)

var (
	named   = regexp.MustCompile("`(Test[A-Z][A-Za-z0-9]*)")
	defined = regexp.MustCompile(`(?m)^func (Test[A-Z][A-Za-z0-9]*)\(`)
	linked  = regexp.MustCompile(`\]\(([^)#:]+)\)`)
)

// Tests that a page names as its proof are there.
func TestNamedTestsExist(t *testing.T) {
	root := treeRoot(t)
	exist := map[string]bool{}
	walk(t, root, "_test.go", func(_, text string) {
		for _, match := range defined.FindAllStringSubmatch(text, -1) {
			exist[match[1]] = true
		}
	})
	count := 0
	walk(t, filepath.Join(root, "docs"), ".md", func(page, text string) {
		for _, match := range named.FindAllStringSubmatch(text, -1) {
			count++
			if !exist[match[1]] {
				t.Errorf("%s names the test %s, which does not exist", page, match[1])
			}
		}
	})
	if count == 0 {
		t.Error("no page names a test")
	}
}

// Files that a page links to are there.
func TestLinkedFilesExist(t *testing.T) {
	walk(t, filepath.Join(treeRoot(t), "docs"), ".md", func(page, text string) {
		for _, match := range linked.FindAllStringSubmatch(text, -1) {
			if _, err := os.Stat(filepath.Join(filepath.Dir(page), match[1])); err != nil {
				t.Errorf("%s links to %s: %v", page, match[1], err)
			}
		}
	})
}

func treeRoot(t *testing.T) string {
	t.Helper()
	root, err := repo.Root()
	if err != nil {
		t.Fatal(err)
	}
	return root
}

// walk gives the files of the tree with such an end, but for what is built and cached.
func walk(t *testing.T, dir, suffix string, look func(path, text string)) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() && strings.HasPrefix(entry.Name(), ".") && path != dir {
			return fs.SkipDir
		}
		if entry.IsDir() || !strings.HasSuffix(path, suffix) {
			return nil
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		look(path, string(text))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

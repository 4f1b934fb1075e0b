// Package docs holds the documentation to the source tree. It holds no code that is shipped.
package docs

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode"

	"github.com/wasmshim/containerd-shim-wasm/internal/repo"
)

var (
	named   = regexp.MustCompile("`(Test[A-Z][A-Za-z0-9]*)")
	defined = regexp.MustCompile(`(?m)^func (Test[A-Z][A-Za-z0-9]*)\(`)
	linked  = regexp.MustCompile(`\]\(([^):]+)\)`)
	reason  = regexp.MustCompile(`RATIONALE\.md, "([^"\n]+)`)
	heading = regexp.MustCompile(`(?m)^#+ (.*)$`)
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

// Files that a page links to are there, and so are the headings in them.
func TestLinksLead(t *testing.T) {
	walk(t, treeRoot(t), ".md", func(page, text string) {
		for _, match := range linked.FindAllStringSubmatch(text, -1) {
			file, anchor, _ := strings.Cut(match[1], "#")
			target, content := filepath.Join(filepath.Dir(page), file), text
			if file != "" {
				read, err := os.ReadFile(target)
				if _, failed := os.Stat(target); failed != nil || (anchor != "" && err != nil) {
					t.Errorf("%s links to %s: %v", page, match[1], err)
					continue
				}
				content = string(read)
			}
			if anchor != "" && !slices.Contains(anchors(content), anchor) {
				t.Errorf("%s links to %s, where no heading has that name", page, match[1])
			}
		}
	})
}

// What a comment points to in RATIONALE.md is a heading there.
func TestReasonsAreThere(t *testing.T) {
	root := treeRoot(t)
	text, err := os.ReadFile(filepath.Join(root, "RATIONALE.md"))
	if err != nil {
		t.Fatal(err)
	}
	headings := map[string]bool{}
	for _, match := range heading.FindAllStringSubmatch(string(text), -1) {
		headings[match[1]] = true
	}
	count := 0
	for _, suffix := range []string{".go", ".c", ".h", ".sh"} {
		walk(t, root, suffix, func(file, text string) {
			for _, match := range reason.FindAllStringSubmatch(text, -1) {
				count++
				if !headings[match[1]] {
					t.Errorf("%s points to %q in RATIONALE.md, which has no such heading", file, match[1])
				}
			}
		})
	}
	if count == 0 {
		t.Error("no comment points to RATIONALE.md")
	}
}

// anchors are the names by which GitHub lets links lead to the headings of a page.
func anchors(page string) []string {
	var names []string
	for _, match := range heading.FindAllStringSubmatch(page, -1) {
		name := strings.Map(func(r rune) rune {
			switch {
			case r == ' ':
				return '-'
			case r == '-' || r == '_' || unicode.IsLetter(r) || unicode.IsDigit(r):
				return unicode.ToLower(r)
			}
			return -1
		}, match[1])
		names = append(names, name)
	}
	return names
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

package docs

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/wasmshim/containerd-shim-wasm/internal/pages"
)

// command is how a line begins that people are to type; other code on a page is output or a file.
var command = regexp.MustCompile(`^(sudo |make |kubectl |systemctl |ctr |for |go |cargo |clang |GOOS=|(\S*/)?containerd-shim-wasm-v1 )`)

// typedElsewhere are blocks of commands that no test reads from their page.
var typedElsewhere = map[string]string{
	`"README.md", "## Try it"`:                    "CI types them: .ci/run",
	`"docs/install.md", "# Installing on a node"`: "those of the README, where the binary was built",
}

// A test reads each block of commands from its page and types it.
func TestCommandsAreTyped(t *testing.T) {
	root := treeRoot(t)
	var typed strings.Builder
	walk(t, filepath.Join(root, "test"), "_test.go", func(_, text string) { typed.WriteString(text) })
	files, err := filepath.Glob(filepath.Join(root, "docs", "*.md"))
	if err != nil {
		t.Fatal(err)
	}
	exceptions := map[string]bool{}
	for _, file := range append(files, filepath.Join(root, "README.md")) {
		page, err := filepath.Rel(root, file)
		if err != nil {
			t.Fatal(err)
		}
		blocks, err := pages.Blocks(page)
		if err != nil {
			t.Fatal(err)
		}
		for _, block := range blocks {
			where := fmt.Sprintf("%q, %q", page, block.Heading)
			if !command.MatchString(block.Lines[0]) || strings.Contains(typed.String(), "commandsOf(t, "+where+")") {
				continue
			}
			if _, known := typedElsewhere[where]; !known {
				t.Errorf("no test has commandsOf(t, %s), which begins with %q", where, block.Lines[0])
			}
			exceptions[where] = true
		}
	}
	for where := range typedElsewhere {
		if !exceptions[where] {
			t.Errorf("%s is no exception", where)
		}
	}
}

// CI types what the README has people try first.
func TestCITypesTheReadme(t *testing.T) {
	script, err := os.ReadFile(filepath.Join(treeRoot(t), ".ci", "run"))
	if err != nil {
		t.Fatal(err)
	}
	blocks, err := pages.Commands("README.md", "## Try it")
	if err != nil {
		t.Fatal(err)
	}
	for _, block := range blocks {
		if line := block[0]; command.MatchString(line) && !strings.Contains(string(script), "\n"+line+"\n") {
			t.Errorf(".ci/run has no line %q", line)
		}
	}
}

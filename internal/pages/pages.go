// Package pages reads the commands in the project's pages, so that tests can run them. No shipped binary imports
// it.
package pages

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/wasmshim/containerd-shim-wasm/internal/repo"
)

// Block is a block of code: lines that are indented by four spaces, and blank lines between them.
type Block struct {
	Heading string // the line above that begins with "#", as in "## Install"
	Lines   []string
}

// Commands returns the blocks of code below a heading of a page. The page's path is one in the source tree.
func Commands(page, heading string) ([][]string, error) {
	blocks, err := Blocks(page)
	if err != nil {
		return nil, err
	}
	var found [][]string
	for _, block := range blocks {
		if block.Heading == heading {
			found = append(found, block.Lines)
		}
	}
	if len(found) == 0 {
		return nil, fmt.Errorf("%s has no commands below %q", page, heading)
	}
	return found, nil
}

// Blocks returns all of a page.
func Blocks(page string) ([]Block, error) {
	root, err := repo.Root()
	if err != nil {
		return nil, err
	}
	text, err := os.ReadFile(filepath.Join(root, page))
	if err != nil {
		return nil, err
	}
	return parse(string(text)), nil
}

func parse(text string) []Block {
	var found []Block
	heading, inside := "", false
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		code, indented := strings.CutPrefix(line, "    ")
		switch {
		case strings.HasPrefix(line, "#"):
			heading, inside = line, false
		case line == "":
		case !indented:
			inside = false
		case inside:
			found[len(found)-1].Lines = append(found[len(found)-1].Lines, code)
		default:
			found, inside = append(found, Block{heading, []string{code}}), true
		}
	}
	return found
}

// Command diagrams draws the pictures of the documentation: it reads each text in docs/diagrams
// and writes an SVG beside it. NAME.tree.txt becomes a tree of processes, NAME.steps.txt a diagram
// of calls between them, NAME.plot.txt a plot of measured figures. A test fails if a committed SVG differs from the output for its text.
package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/wasmshim/containerd-shim-wasm/internal/repo"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "diagrams:", err)
		os.Exit(1)
	}
}

func run() error {
	pictures, err := drawAll()
	if err != nil {
		return err
	}
	for file, svg := range pictures {
		if err := os.WriteFile(file, []byte(svg), 0o644); err != nil {
			return err
		}
		fmt.Println("drew", file)
	}
	return nil
}

// kinds are the ways to draw a text, by its file name's suffix.
var kinds = map[string]func(text string) (string, error){
	".tree.txt":  drawTree,
	".steps.txt": drawSteps,
	".plot.txt":  drawPlot,
}

// drawAll returns the pictures of all texts, by the name of the picture's file.
func drawAll() (map[string]string, error) {
	root, err := repo.Root()
	if err != nil {
		return nil, err
	}
	pictures := map[string]string{}
	for suffix, draw := range kinds {
		texts, err := filepath.Glob(filepath.Join(root, "docs", "diagrams", "*"+suffix))
		if err != nil {
			return nil, err
		}
		for _, file := range texts {
			text, err := os.ReadFile(file)
			if err != nil {
				return nil, err
			}
			svg, err := draw(string(text))
			if err != nil {
				return nil, fmt.Errorf("%s: %w", file, err)
			}
			pictures[strings.TrimSuffix(file, suffix)+".svg"] = svg
		}
	}
	return pictures, nil
}

// content returns the lines of a text that are to be drawn: no comments, no empty ones.
func content(text string) []string {
	var lines []string
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, " \n")
		if line != "" && !strings.HasPrefix(line, "#") {
			lines = append(lines, line)
		}
	}
	return lines
}

package main

import (
	"os"
	"strings"
	"testing"
)

// The pictures in docs match their texts.
func TestPicturesAreOfTheirTexts(t *testing.T) {
	pictures, err := drawAll()
	if err != nil {
		t.Fatal(err)
	}
	if len(pictures) == 0 {
		t.Error("there are no pictures")
	}
	for file, want := range pictures {
		if got, err := os.ReadFile(file); err != nil || string(got) != want {
			t.Errorf("%s is not what its text makes (%v): run make diagrams", file, err)
		}
	}
}

// A mistake in a text gives an error with the line.
func TestMistakesAreNamed(t *testing.T) {
	for _, c := range []struct {
		draw       func(string) (string, error)
		text, want string
	}{
		{drawTree, "title\na | root | does a\n    b | root | two deeper", "b | root"},
		{drawTree, "title\na | purple | does a", "purple"},
		{drawSteps, "title\nlane a | root | does a\na > b: calls", `"b"`},
		{drawSteps, "title\nlane a | root | does a\nnonsense", "nonsense"},
		{drawPlot, "title t\nnonsense", "nonsense"},
		{drawPlot, "line a | 0 1", "line a | 0 1"},
		{drawPlot, "line a | 1 x", "line a | 1 x"},
	} {
		if _, err := c.draw(c.text); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("the error of %q is %v, want %q in it", c.text, err, c.want)
		}
	}
}

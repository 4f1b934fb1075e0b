package pages

import (
	"reflect"
	"strings"
	"testing"
)

func TestParse(t *testing.T) {
	const page = `    before all

# Title

    above

## Some

Some words.

    one
    two    # with a comment

    three

More words.

    four

## Empty

## Last

    the end`
	want := []Block{
		{"", []string{"before all"}},
		{"# Title", []string{"above"}},
		{"## Some", []string{"one", "two    # with a comment", "three"}},
		{"## Some", []string{"four"}},
		{"## Last", []string{"the end"}},
	}
	if got := parse(page); !reflect.DeepEqual(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestCommands(t *testing.T) {
	got, err := Commands("README.md", "## Try it")
	if err != nil || !reflect.DeepEqual(got[0], []string{"make demo"}) {
		t.Errorf("got %q, %v", got, err)
	}
	if _, err := Commands("README.md", "## No such heading"); err == nil || !strings.Contains(err.Error(), "README.md") {
		t.Errorf("the error is %v", err)
	}
	if _, err := Commands("NONE.md", "## Try it"); err == nil {
		t.Error("a page that is not there has commands")
	}
}

package entrypoint_test

import (
	"path"
	"slices"
	"strings"
	"testing"

	"github.com/wasmshim/containerd-shim-wasm/entrypoint"
)

func TestParse(t *testing.T) {
	for word, want := range map[string]entrypoint.Point{
		"/app.wasm":               {"/app.wasm", "_start"},
		"/app.wasm#run":           {"/app.wasm", "run"},
		"/app.wasm#":              {"/app.wasm", ""},
		"/app.wasm#a#b":           {"/app.wasm", "a#b"},
		"/a.wasm#/b.wasm#f":       {"/a.wasm#/b.wasm", "f"},
		"app.wasm#ns:pkg/iface@1": {"app.wasm", "ns:pkg/iface@1"},
		"/my#app.wasm":            {"/my#app.wasm", "_start"},
		"/bin/sh":                 {"/bin/sh", "_start"},
		"/app#init":               {"/app#init", "_start"},
		"#.wasm":                  {"#.wasm", "_start"},
		".wasm#f":                 {".wasm", "f"},
		"/app.WASM#f":             {"/app.WASM#f", "_start"},
		"":                        {"", "_start"},
		"#":                       {"#", "_start"},
	} {
		if got := entrypoint.Parse(word); got != want {
			t.Errorf("%q: got %+v, want %+v", word, got, want)
		}
	}
}

func TestIsWasm(t *testing.T) {
	for word, want := range map[string]bool{
		"/app.wasm": true, "/app.wasm#f": true, ".wasm": true, "/bin/sh": false, "/bin/sh#f": false, "/app.wasm.txt": false, "": false,
	} {
		if got := entrypoint.Parse(word).IsWasm(); got != want {
			t.Errorf("%q: got %v", word, got)
		}
	}
}

func TestIsRoot(t *testing.T) {
	for word, want := range map[string]bool{"/": true, "//": true, "": false, "/.": false, "/bin": false, ".": false} {
		if got := entrypoint.Parse(word).IsRoot(); got != want {
			t.Errorf("%q: got %v", word, got)
		}
	}
}

func TestPaths(t *testing.T) {
	search := []string{"A=1", "PATH=/bin:tools:"}
	for _, test := range []struct {
		word, cwd string
		env       []string
		want      []string
	}{
		{"/app.wasm", "/work", search, []string{"/app.wasm"}},
		{"/a/../app", "/work", search, []string{"/app"}},
		{"./app.wasm", "/work", search, []string{"/work/app.wasm"}},
		{"../app", "/work/here", search, []string{"/work/app"}},
		{"sh", "/work", search, []string{"/bin/sh", "/work/tools/sh", "/work/sh"}},
		{"app.wasm", "/work", []string{"PATH=/bin"}, []string{"/bin/app.wasm"}},
		{"sh", "/", []string{"PATH=/first", "PATH=/last"}, []string{"/last/sh"}},
		{"sh", "/", nil, []string{"/usr/local/sbin/sh", "/usr/local/bin/sh", "/usr/sbin/sh", "/usr/bin/sh", "/sbin/sh", "/bin/sh"}},
		{"sh", "/", []string{"PATH="}, nil},
		{"", "/", nil, nil},
		{"/", "/work", search, nil},
	} {
		if got := entrypoint.Parse(test.word).Paths(test.cwd, test.env); !slices.Equal(got, test.want) {
			t.Errorf("%q in %q with %q: got %q, want %q", test.word, test.cwd, test.env, got, test.want)
		}
	}
	endless := "PATH=" + strings.Repeat("/a:", 1<<20)
	if got := entrypoint.Parse("sh").Paths("/", []string{endless}); len(got) != 1000 {
		t.Errorf("%d folders of an endless PATH count", len(got))
	}
}

func TestLocal(t *testing.T) {
	for word, want := range map[string]string{
		"app.wasm": "/work/app.wasm", "app.wasm#run": "/work/app.wasm", "app": "", "/app.wasm": "", "./app.wasm": "", "": "", "/": "",
	} {
		if got := entrypoint.Parse(word).Local("/work"); got != want {
			t.Errorf("%q: got %q, want %q", word, got, want)
		}
	}
}

// The file and the function of a word make up the word again, and every path is absolute and clean.
func FuzzParse(f *testing.F) {
	for _, word := range []string{"/app.wasm#run", "app.wasm#a#b", "/", "", "../x", "a#b.wasm"} {
		f.Add(word, "/work", "/bin:rel:")
	}
	f.Fuzz(func(t *testing.T, word, cwd, search string) {
		p := entrypoint.Parse(word)
		if p.File != word && p.File+"#"+p.Function != word {
			t.Errorf("%q is %+v", word, p)
		}
		for _, at := range p.Paths(cwd, []string{"PATH=" + search}) {
			if !path.IsAbs(at) || path.Clean(at) != at {
				t.Errorf("%q in %q with %q is looked for at %q", word, cwd, search, at)
			}
		}
	})
}

// Of a long PATH only a limited number of folders counts, and no path is longer than the kernel takes.
func TestPathsAreFew(t *testing.T) {
	many := []string{"PATH=" + strings.Repeat("a:", 60_000)}
	if got := len(entrypoint.Point{File: "app"}.Paths("/", many)); got > 1000 {
		t.Errorf("of 60,000 folders %d are looked at", got)
	}
	if got := (entrypoint.Point{File: "app"}).Paths("/"+strings.Repeat("w", 100<<10), many); len(got) != 0 {
		t.Errorf("in a folder that cannot be there are %d paths", len(got))
	}
	long := "PATH=/" + strings.Repeat("x", 100<<10) + ":/bin"
	if got := (entrypoint.Point{File: "app"}).Paths("/", []string{long}); !slices.Equal(got, []string{"/bin/app"}) {
		t.Errorf("%d paths", len(got))
	}
}

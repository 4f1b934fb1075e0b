package sandbox

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestCommonDir(t *testing.T) {
	for _, test := range []struct {
		paths []string
		want  string
	}{
		{[]string{"/a/b/1/fs"}, "/a/b/1"},
		{[]string{"/a/b/1/fs", "/a/b/2/fs"}, "/a/b"},
		{[]string{"/a/b/1/fs", "/a/b/12/fs", "/a/b/1/fs"}, "/a/b"},
		{[]string{"/a/bc/fs", "/a/b/fs"}, "/a"},
		{[]string{"/a/b", "/a"}, "/"},
		{[]string{"/a", "/b"}, "/"},
		{[]string{"/a"}, "/"},
	} {
		if got := commonDir(test.paths); got != test.want {
			t.Errorf("of %q: got %q, want %q", test.paths, got, test.want)
		}
	}
}

// layers makes the folders of an image with count layers and returns overlay's option.
func layers(t *testing.T, count int) (dir, option string) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "snapshots")
	var lowers []string
	for i := range count {
		lower := filepath.Join(dir, fmt.Sprint(i), "fs")
		if err := os.MkdirAll(lower, 0o755); err != nil {
			t.Fatal(err)
		}
		lowers = append(lowers, lower)
	}
	return dir, "lowerdir=" + strings.Join(lowers, ":")
}

func TestShortenLowers(t *testing.T) {
	t.Chdir(t.TempDir()) // shortenLowers changes it
	dir, option := layers(t, 200)
	given := []string{"index=off", option, "upperdir=/up", "workdir=/work"}
	got, err := shortenLowers(given)
	if err != nil {
		t.Fatal(err)
	}
	if given[1] != option {
		t.Error("what the caller gave was changed")
	}
	if at, err := os.Getwd(); err != nil || at != dir {
		t.Errorf("the working directory is %q, %v, want %q", at, err, dir)
	}
	if !slices.Equal(got[2:], given[2:]) || got[0] != given[0] || len(got[1]) > os.Getpagesize()/2 {
		t.Errorf("got %q", got)
	}
	short := strings.Split(strings.TrimPrefix(got[1], "lowerdir="), ":")
	for i, long := range strings.Split(strings.TrimPrefix(option, "lowerdir="), ":") {
		if filepath.Join(dir, short[i]) != long {
			t.Errorf("layer %d is %q, was %q", i, short[i], long)
		}
	}
}

// shortenLowers does not change an option that is short, or that no snapshotter makes.
func TestShortenLowersLeavesAlone(t *testing.T) {
	t.Chdir(t.TempDir())
	before, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	long := strings.Repeat(":/a/layer", 500)
	for name, data := range map[string][]string{
		"none":          nil,
		"short":         {"lowerdir=/a:/b", "upperdir=/c"},
		"relative":      {"lowerdir=b" + long},
		"empty":         {"lowerdir=" + long},
		"escaped colon": {`lowerdir=/a/b\:c` + long},
		"root":          {"lowerdir=/" + long},
		"dots":          {"lowerdir=/a/../b" + long},
		"trailing":      {"lowerdir=/a/" + long},
	} {
		got, err := shortenLowers(data)
		if err != nil || !slices.Equal(got, data) {
			t.Errorf("%s: got %.80q, %v", name, got, err)
		}
	}
	if at, err := os.Getwd(); err != nil || at != before {
		t.Errorf("the working directory is %q, %v", at, err)
	}
}

func TestShortenLowersNamesTheMissingDirectory(t *testing.T) {
	t.Chdir(t.TempDir())
	_, err := shortenLowers([]string{"lowerdir=" + strings.Repeat(":/nonexistent/layer", 500)[1:]})
	if err == nil || !strings.Contains(err.Error(), "/nonexistent") {
		t.Errorf("got %v", err)
	}
}

// commonDir returns the deepest directory that is a proper parent of every path.
func FuzzCommonDir(f *testing.F) {
	f.Add("/a/b:/a/c")
	f.Add("/a:/a/b")
	f.Add("/:/a")
	f.Add("/a/b/c/d:/a/b/c/d:/a/b/cd/e")
	f.Fuzz(func(t *testing.T, list string) {
		paths := strings.Split(list, ":")
		if slices.ContainsFunc(paths, isOddPath) {
			return
		}
		within := func(dir string) bool {
			return !slices.ContainsFunc(paths, func(p string) bool { return !strings.HasPrefix(p, strings.TrimSuffix(dir, "/")+"/") })
		}
		dir := commonDir(paths)
		if !within(dir) {
			t.Fatalf("%q is not above all of %q", dir, paths)
		}
		rest := strings.TrimPrefix(strings.TrimPrefix(paths[0], dir), "/")
		if next, _, deeper := strings.Cut(rest, "/"); deeper && within(filepath.Join(dir, next)) {
			t.Errorf("%q is not the deepest above %q", dir, paths)
		}
	})
}

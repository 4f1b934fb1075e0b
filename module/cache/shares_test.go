package cache

import (
	"context"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/wasmshim/containerd-shim-wasm/worker/control"
)

// entryOf returns an entry of a tenant, last used so many minutes ago.
func entryOf(tenant, digest string, size, minutes int) Info {
	return Info{Tenant: tenant, Digest: digest, Size: int64(size), Used: time.Unix(int64(-60*minutes), 0)}
}

func TestExcess(t *testing.T) {
	inUse := entryOf("a", "a1", 50, 9)
	inUse.InUse = true
	for name, test := range map[string]struct {
		all   []Info // the least recently used first
		limit int64
		want  string
	}{
		"within the limit": {[]Info{entryOf("a", "a1", 10, 2), entryOf("b", "b1", 10, 1)}, 20, ""},
		"one tenant":       {[]Info{entryOf("a", "a1", 10, 3), entryOf("a", "a2", 10, 2), entryOf("a", "a3", 10, 1)}, 15, "a1 a2"},
		"a flood": {[]Info{entryOf("b", "b1", 10, 9), entryOf("a", "a1", 10, 4), entryOf("a", "a2", 10, 3), entryOf("a", "a3", 10, 2),
			entryOf("a", "a4", 10, 1)}, 20, "a1 a2 a3"},
		"down to equal shares": {[]Info{entryOf("b", "b1", 10, 9), entryOf("b", "b2", 10, 8), entryOf("a", "a1", 10, 2), entryOf("a", "a2", 10, 1)}, 15, "b1 a1 b2"},
		"what is in use":       {[]Info{inUse, entryOf("b", "b1", 10, 2), entryOf("b", "b2", 10, 1)}, 20, "b1"},
		"his own of it":        {[]Info{inUse, entryOf("b", "b1", 10, 9), entryOf("a", "a2", 10, 1)}, 20, "a2"},
		"nothing is idle":      {[]Info{inUse}, 20, ""},
	} {
		var got []string
		for _, info := range excess(test.all, test.limit) {
			got = append(got, info.Digest)
		}
		if strings.Join(got, " ") != test.want {
			t.Errorf("%s: removes %q, want %q", name, got, test.want)
		}
	}
}

// A tenant that compiles more than the cache holds displaces its own modules, not those of others, even if
// those are unused for longer. This is also true if it keeps more in use than the cache holds.
func TestTenantsFloodIsHisOwn(t *testing.T) {
	dir := t.TempDir()
	c := open(t, dir)
	compileFor := func(tenant string) Compiler {
		return func(_ context.Context, out *os.File) (*control.Module, error) {
			_, err := out.WriteString(tenKB)
			return &control.Module{Functions: []string{"_start"}, Tenant: tenant}, err
		}
	}
	add := func(tenant, name string, ago time.Duration) {
		t.Helper()
		load(t, c, digestOf(name), compileFor(tenant))
		used := time.Now().Add(-ago)
		if err := os.Chtimes(c.path(digestOf(name), indexSuffix), used, used); err != nil {
			t.Fatal(err)
		}
	}
	add("quiet", "quiet", 24*time.Hour)
	flood := []string{"1", "2", "3", "4", "5", "6"}
	for i, name := range flood {
		add("loud", name, time.Duration(len(flood)-i)*time.Minute)
	}
	if removed, _ := runTrim(t, dir, 33_000, nil); !slices.Equal(removed, digestsOf("1", "2", "3", "4")) {
		t.Errorf("removed %q", removed)
	}
	wantFiles(t, c, digestsOf("quiet", "5", "6")...)
	for _, name := range []string{"5", "6"} {
		entry, err := c.Load(t.Context(), digestOf(name), compileFor("loud"))
		if err != nil {
			t.Fatal(err)
		}
		defer entry.Close()
	}
	add("loud", "7", 0)
	if removed, _ := runTrim(t, dir, 21_000, nil); !slices.Equal(removed, digestsOf("7")) {
		t.Errorf("removed %q", removed)
	}
	wantFiles(t, c, digestsOf("quiet", "5", "6")...)
}

package cache

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/wasmshim/containerd-shim-wasm/module/filelock"
)

// tenKB is the code of a module, so that an entry with its index takes from 10 to 11 kB.
var tenKB = strings.Repeat("0123456789", 1000)

// fill compiles modules with these names, each of tenKB; the first was used longest ago.
func fill(t *testing.T, c *Cache, names ...string) {
	t.Helper()
	for i, name := range names {
		load(t, c, digestOf(name), (&compiler{code: tenKB}).compile)
		used := time.Now().Add(time.Duration(i-len(names)) * time.Hour)
		if err := os.Chtimes(c.path(digestOf(name), indexSuffix), used, used); err != nil {
			t.Fatal(err)
		}
	}
}

func digestsOf(names ...string) []string {
	var digests []string
	for _, name := range names {
		digests = append(digests, digestOf(name))
	}
	return digests
}

func runTrim(t *testing.T, dir string, limit int64, release Release) (removed []string, pending bool) {
	t.Helper()
	infos, pending, err := Trim(t.Context(), dir, limit, release)
	if err != nil {
		t.Fatal(err)
	}
	for _, info := range infos {
		removed = append(removed, info.Digest)
	}
	return removed, pending
}

func TestTrimRemovesTheLeastRecentlyUsed(t *testing.T) {
	dir := t.TempDir()
	c := open(t, dir)
	fill(t, c, "a", "b", "c", "d")
	if removed, _ := runTrim(t, dir, 44_000, nil); removed != nil {
		t.Errorf("removed %q within the limit", removed)
	}
	// The oldest is used again.
	load(t, c, digestOf("a"), (&compiler{code: "again"}).compile)
	if removed, _ := runTrim(t, dir, 22_000, nil); !slices.Equal(removed, digestsOf("b", "c")) {
		t.Errorf("removed %q", removed)
	}
	wantFiles(t, c, digestsOf("a", "d")...)
	if removed, _ := runTrim(t, dir, 0, nil); !slices.Equal(removed, digestsOf("d", "a")) {
		t.Errorf("removed %q", removed)
	}
}

// The limit is for all engines together: an old engine's entries are not used any more, so they are removed
// first.
func TestTrimCountsEveryEngine(t *testing.T) {
	dir := t.TempDir()
	old, err := Open(dir, "old")
	if err != nil {
		t.Fatal(err)
	}
	fill(t, old, "a")
	c := open(t, dir)
	load(t, c, digestOf("a"), (&compiler{code: tenKB}).compile)
	if removed, _ := runTrim(t, dir, 11_000, nil); len(removed) != 1 {
		t.Errorf("removed %q", removed)
	}
	wantFiles(t, c, digestOf("a"))
	wantFiles(t, old)
}

// Code that a worker maps stays, whatever descriptor holds it.
func TestTrimLeavesWhatIsInUse(t *testing.T) {
	dir := t.TempDir()
	c := open(t, dir)
	fill(t, c, "a", "b")
	entry, err := c.lookup(digestOf("a"))
	if err != nil {
		t.Fatal(err)
	}
	worker, err := filelock.OpenShared(c.path(digestOf("a"), codeSuffix))
	if err != nil {
		t.Fatal(err)
	}
	for _, held := range []interface{ Close() error }{entry, worker} {
		if removed, _ := runTrim(t, dir, 0, nil); slices.Contains(removed, digestOf("a")) {
			t.Errorf("removed %q, which is in use", removed)
		}
		wantFiles(t, c, digestOf("a"))
		if err := held.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if removed, _ := runTrim(t, dir, 0, nil); !slices.Equal(removed, digestsOf("a")) {
		t.Errorf("removed %q", removed)
	}
}

// An entry that is being compiled anew, or has been used since it was listed, stays.
func TestTrimLeavesWhatIsComing(t *testing.T) {
	dir := t.TempDir()
	c := open(t, dir)
	fill(t, c, "a", "b")
	lock, err := c.lock(t.Context(), digestOf("a"), lockSuffix)
	if err != nil {
		t.Fatal(err)
	}
	if removed, _ := runTrim(t, dir, 0, nil); !slices.Equal(removed, digestsOf("b")) {
		t.Errorf("removed %q", removed)
	}
	lock.Release()
	all, err := List(t.Context(), dir)
	if err != nil || len(all) != 1 {
		t.Fatalf("got %+v, %v", all, err)
	}
	load(t, c, digestOf("a"), (&compiler{code: "again"}).compile)
	if err := all[0].remove(t.Context(), nil); !errors.Is(err, filelock.ErrBusy) {
		t.Errorf("an entry that was used meanwhile was removed: %v", err)
	}
	wantFiles(t, c, digestOf("a"))
}

// Other processes wait for the one that cleans up, and the wait can be cancelled.
func TestTrimIsDoneByOneAtATime(t *testing.T) {
	dir := t.TempDir()
	fill(t, open(t, dir), "a")
	lock, err := filelock.Try(filepath.Join(dir, trimLock))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, err := Trim(ctx, dir, 0, nil); !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "clean-up") {
		t.Errorf("got %v", err)
	}
	lock.Release()
	if removed, _ := runTrim(t, dir, 0, nil); len(removed) != 1 {
		t.Errorf("removed %q", removed)
	}
}

func TestTrimOfNothing(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "none")
	if removed, pending := runTrim(t, dir, 0, nil); removed != nil || pending {
		t.Errorf("got %q, %v", removed, pending)
	}
	if err := Sweep(dir); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Error("the folder was made")
	}
}

// Damaged entries, and code without an index, are always removed, unless they are in use.
func TestTrimRemovesWhatIsDamaged(t *testing.T) {
	dir := t.TempDir()
	c := open(t, dir)
	fill(t, c, "whole", "changed", "no code", "no index", "running")
	for _, err := range []error{
		flip(0)(c.path(digestOf("changed"), codeSuffix), ""),
		os.Remove(c.path(digestOf("no code"), codeSuffix)),
		os.Remove(c.path(digestOf("no index"), indexSuffix)),
		os.Remove(c.path(digestOf("running"), indexSuffix)),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	worker, err := filelock.OpenShared(c.path(digestOf("running"), codeSuffix))
	if err != nil {
		t.Fatal(err)
	}
	runTrim(t, dir, 1<<20, nil)
	if _, err := os.Stat(c.path(digestOf("running"), codeSuffix)); err != nil {
		t.Error(err)
	}
	if err := worker.Close(); err != nil {
		t.Fatal(err)
	}
	runTrim(t, dir, 1<<20, nil)
	wantFiles(t, c, digestOf("whole"))
}

func TestPrune(t *testing.T) {
	dir := t.TempDir()
	c := open(t, dir)
	fill(t, c, "a", "b", "c")
	removed, err := Prune(t.Context(), dir, func(i Info) bool { return i.Digest == digestOf("b") }, nil)
	if err != nil || len(removed) != 1 || removed[0].Size <= 10_000 || removed[0].Size > 11_000 {
		t.Errorf("got %+v, %v", removed, err)
	}
	wantFiles(t, c, digestsOf("a", "c")...)
}

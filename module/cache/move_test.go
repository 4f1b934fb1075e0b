package cache

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/wasmshim/containerd-shim-wasm/module/filelock"
)

// storeIn puts code into a folder, as a content store would.
func storeIn(dir, image string) Put {
	return func(_ context.Context, code *os.File, sum string) (string, Image, error) {
		data, err := io.ReadAll(io.NewSectionReader(code, 0, 1<<30))
		path := filepath.Join(dir, sum)
		return path, Image{Name: image}, errors.Join(err, os.WriteFile(path, data, 0o444))
	}
}

func move(t *testing.T, c *Cache, digest, key string, put Put) {
	t.Helper()
	if err := c.Move(t.Context(), digest, key, put); err != nil {
		t.Fatal(err)
	}
}

// lookedUp returns an entry and the path of its code.
func lookedUp(t *testing.T, c *Cache, digest string) (Entry, string) {
	t.Helper()
	entry, err := c.lookup(digest)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { entry.Close() })
	return entry, entry.Code.Name()
}

func TestMovedEntry(t *testing.T) {
	dir, store := t.TempDir(), t.TempDir()
	c := open(t, dir)
	digest := digestOf("module")
	made := &compiler{code: "code"}
	load(t, c, digest, made.compile)
	move(t, c, digest, "first", storeIn(store, "one"))
	entry, path := lookedUp(t, c, digest)
	if filepath.Dir(path) != store || !entry.Known("first") || entry.Known("second") {
		t.Errorf("the entry is %+v at %s", entry, path)
	}
	if err := c.Drop(t.Context(), digest); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(c.path(digest, codeSuffix)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the cache keeps its own file: %v", err)
	}
	move(t, c, digest, "second", storeIn(store, "two"))
	if entry, _ := lookedUp(t, c, digest); !entry.Known("first") || !entry.Known("second") {
		t.Errorf("the entry is %+v", entry)
	}
	if got := load(t, c, digest, made.compile); got != "code" || made.runs != 1 {
		t.Errorf("got %q after %d compilations", got, made.runs)
	}
	// The image is asked once.
	move(t, c, digest, "second", func(context.Context, *os.File, string) (string, Image, error) { panic("asked again") })

	// containerd removes the blob.
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if all, err := List(t.Context(), dir); err != nil || len(all) != 0 {
		t.Errorf("listed %+v, %v", all, err)
	}
	if got := load(t, c, digest, made.compile); got != "code" || made.runs != 2 {
		t.Errorf("got %q after %d compilations", got, made.runs)
	}
	if entry, _ := lookedUp(t, c, digest); entry.Known("first") {
		t.Error("the new entry takes itself for kept")
	}
	wantFiles(t, c, digest)
}

// A container without an image leaves the code where it is.
func TestEntryWithoutImage(t *testing.T) {
	c := open(t, t.TempDir())
	digest := digestOf("module")
	load(t, c, digest, (&compiler{code: "code"}).compile)
	move(t, c, digest, "key", func(context.Context, *os.File, string) (string, Image, error) { return "", Image{}, nil })
	if entry, path := lookedUp(t, c, digest); !entry.Known("key") || path != c.path(digest, codeSuffix) {
		t.Errorf("the entry is %+v at %s", entry, path)
	}
	if err := c.Drop(t.Context(), digest); err != nil {
		t.Fatal(err)
	}
	wantFiles(t, c, digest)
}

// The old file is removed when its last user closes it.
func TestDropWaitsForUsers(t *testing.T) {
	dir := t.TempDir()
	c := open(t, dir)
	digest := digestOf("module")
	load(t, c, digest, (&compiler{code: "code"}).compile)
	worker, err := filelock.OpenShared(c.path(digest, codeSuffix))
	if err != nil {
		t.Fatal(err)
	}
	move(t, c, digest, "key", storeIn(t.TempDir(), "image"))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := c.Drop(ctx, digest); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	dropped := make(chan error)
	go func() { dropped <- c.Drop(t.Context(), digest) }()
	if err := worker.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-dropped; err != nil {
		t.Fatal(err)
	}
	// The cancelled Drop may have had the lock at that moment.
	runTrim(t, dir, 1000, nil)
	if _, err := os.Stat(c.path(digest, codeSuffix)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the old file is there: %v", err)
	}
	lookedUp(t, c, digest)
}

// The stored file is checked, and a failure changes nothing.
func TestMoveThatFails(t *testing.T) {
	broken := errors.New("no containerd")
	for name, put := range map[string]Put{
		"not stored": func(context.Context, *os.File, string) (string, Image, error) { return "", Image{}, broken },
		"other bytes": func(_ context.Context, _ *os.File, sum string) (string, Image, error) {
			path := filepath.Join(t.TempDir(), sum)
			return path, Image{}, os.WriteFile(path, []byte("edoc"), 0o444)
		},
		"no file": func(context.Context, *os.File, string) (string, Image, error) {
			return filepath.Join(t.TempDir(), "none"), Image{}, nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			c := open(t, t.TempDir())
			digest := digestOf("module")
			load(t, c, digest, (&compiler{code: "code"}).compile)
			if err := c.Move(t.Context(), digest, "key", put); err == nil {
				t.Error("it did not fail")
			}
			if entry, path := lookedUp(t, c, digest); entry.Known("key") || path != c.path(digest, codeSuffix) {
				t.Errorf("the entry is %+v at %s", entry, path)
			}
			wantFiles(t, c, digest)
		})
	}
}

// Trim asks containerd to release blobs, and only containerd removes them.
func TestTrimReleasesBlobs(t *testing.T) {
	dir, store := t.TempDir(), t.TempDir()
	c := open(t, dir)
	digest := digestOf("module")
	load(t, c, digest, (&compiler{code: "code"}).compile)
	move(t, c, digest, "key", storeIn(store, "image"))
	if err := c.Drop(t.Context(), digest); err != nil {
		t.Fatal(err)
	}
	if removed, pending := runTrim(t, dir, 0, nil); removed != nil || !pending {
		t.Errorf("without containerd: removed %q, pending %v", removed, pending)
	}
	entry, path := lookedUp(t, c, digest)
	var released []Info
	release := func(_ context.Context, info Info) error {
		released = append(released, info)
		return nil
	}
	if removed, _ := runTrim(t, dir, 0, release); removed != nil || released != nil {
		t.Errorf("removed %q, which is in use", removed)
	}
	if err := entry.Close(); err != nil {
		t.Fatal(err)
	}
	if removed, pending := runTrim(t, dir, 0, release); len(removed) != 1 || pending {
		t.Errorf("removed %q, pending %v", removed, pending)
	}
	if len(released) != 1 || released[0].Blob != path || released[0].Images[0].Name != "image" {
		t.Errorf("released %+v", released)
	}
	if _, err := os.Stat(path); err != nil {
		t.Errorf("the blob is containerd's to remove: %v", err)
	}
	wantFiles(t, c)
}

// If a store does not answer, only the blob's space is lost, and an error reports that.
func TestTrimCannotRelease(t *testing.T) {
	dir := t.TempDir()
	c := open(t, dir)
	digest := digestOf("module")
	load(t, c, digest, (&compiler{code: "code"}).compile)
	move(t, c, digest, "key", storeIn(t.TempDir(), "image"))
	_, _, err := Trim(t.Context(), dir, 0, func(context.Context, Info) error { return errors.New("no answer") })
	if err == nil || !strings.Contains(err.Error(), "stays until its image is removed: no answer") {
		t.Errorf("got %v", err)
	}
}

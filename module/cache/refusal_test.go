package cache

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/wasmshim/containerd-shim-wasm/worker/control"
)

// refuser counts its runs, all of which end with an error.
type refuser struct {
	err  error
	runs int
}

func (r *refuser) compile(context.Context, *os.File) (*control.Module, error) {
	r.runs++
	return nil, fmt.Errorf("the preparer says: %w", r.err)
}

func TestRefusalIsRemembered(t *testing.T) {
	dir := t.TempDir()
	refuser := &refuser{err: &Refused{Reason: "imports what there is not"}}
	for range 3 {
		_, err := open(t, dir).Load(t.Context(), digestOf("module"), refuser.compile)
		var refused *Refused
		if !errors.As(err, &refused) || refused.Reason != "imports what there is not" {
			t.Errorf("got %v", err)
		}
	}
	if refuser.runs != 1 {
		t.Errorf("compiled %d times", refuser.runs)
	}
	other, err := Open(dir, "engine2")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := other.Load(t.Context(), digestOf("module"), refuser.compile); err == nil || refuser.runs != 2 {
		t.Error("another engine believed this one's refusal")
	}
	if _, err := Prune(t.Context(), dir, func(Info) bool { return false }, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := open(t, dir).Load(t.Context(), digestOf("module"), refuser.compile); err == nil || refuser.runs != 3 {
		t.Error("a refusal survived being pruned")
	}
}

// A failure because of one container's limits, or of bad luck, is not remembered.
func TestOtherErrorsAreNotRemembered(t *testing.T) {
	c := open(t, t.TempDir())
	failing := &refuser{err: errors.New("it needs more memory")}
	for range 2 {
		if _, err := c.Load(t.Context(), digestOf("module"), failing.compile); err == nil {
			t.Error("no error")
		}
	}
	if failing.runs != 2 {
		t.Errorf("compiled %d times", failing.runs)
	}
	load(t, c, digestOf("module"), (&compiler{code: "code"}).compile)
}

func TestRefusalsAreFewAndShort(t *testing.T) {
	dir := t.TempDir()
	c := open(t, dir)
	long := &Refused{Reason: strings.Repeat("x", 1<<20)}
	for i := range mostRefusals + 10 {
		if err := c.refuse(t.Context(), digestOf(fmt.Sprint(i)), long); err != nil {
			t.Fatal(err)
		}
	}
	files, err := filesOf(filepath.Join(c.dir, refusedDir))
	if err != nil || len(files) > mostRefusals {
		t.Errorf("%d refusals, %v", len(files), err)
	}
	for _, f := range files {
		if f.Size() > maxRefusal {
			t.Errorf("a refusal has %d bytes", f.Size())
		}
	}
	if refused, ok := c.refusal(digestOf(fmt.Sprint(mostRefusals + 9))); !ok || len(refused.Reason) != maxRefusal {
		t.Error("the last refusal is not remembered")
	}
}

// Old refusals are removed, also those of engines that are gone.
func TestTrimForgetsOldRefusals(t *testing.T) {
	dir := t.TempDir()
	c := open(t, dir)
	for _, name := range []string{"old", "new"} {
		if err := c.refuse(t.Context(), digestOf(name), &Refused{Reason: "no"}); err != nil {
			t.Fatal(err)
		}
	}
	past := time.Now().Add(-refusalAge - time.Hour)
	if err := os.Chtimes(c.refusalPath(digestOf("old")), past, past); err != nil {
		t.Fatal(err)
	}
	runTrim(t, dir, 0, nil)
	if _, ok := c.refusal(digestOf("old")); ok {
		t.Error("an old refusal is still believed")
	}
	if _, ok := c.refusal(digestOf("new")); !ok {
		t.Error("a new refusal was forgotten")
	}
}

package cache

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/wasmshim/containerd-shim-wasm/worker/control"
)

// anyRoom returns a Compiler that ignores how much room there is.
func anyRoom(compile Compiler) func(context.Context, *os.File, int64) (*control.Module, error) {
	return func(ctx context.Context, out *os.File, _ int64) (*control.Module, error) { return compile(ctx, out) }
}

func TestUncached(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "uncached")
	entry, err := Uncached(t.Context(), dir, "digest", anyRoom((&compiler{code: "code"}).compile))
	if err != nil {
		t.Fatal(err)
	}
	if code, err := io.ReadAll(entry.Code); err != nil || string(code) != "code" || len(entry.Module.Functions) != 1 {
		t.Errorf("got %q, %v, %+v", code, err, entry.Module)
	}
	var st unix.Stat_t
	if err := unix.Stat(entry.Code.Name(), &st); err != nil || st.Mode&0o777 != 0o444 {
		t.Errorf("the code has mode %o, %v", st.Mode, err)
	}
	// The code is in use.
	if err := SweepUncached(dir); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(entry.Code.Name()); err != nil {
		t.Error(err)
	}
	if err := entry.Close(); err != nil {
		t.Fatal(err)
	}
	emptyFolder(t, dir)
}

func emptyFolder(t *testing.T, dir string) {
	t.Helper()
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestUncachedFails(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "uncached")
	refused := errors.New("not a module")
	_, err := Uncached(t.Context(), dir, "digest", func(context.Context, *os.File, int64) (*control.Module, error) { return nil, refused })
	if !errors.Is(err, refused) {
		t.Errorf("got %v", err)
	}
	emptyFolder(t, dir)
}

// Uncached code leaves room for others, also if it has no name any more but is in use.
func TestUncachedLeavesRoom(t *testing.T) {
	const size, free = 1 << 20, 256 << 10
	dir := filepath.Join(mount(t, fmt.Sprintf("size=%d", size)), "uncached")
	var room int64
	compile := func(_ context.Context, out *os.File, most int64) (*control.Module, error) {
		room = most
		_, err := out.Write(make([]byte, 400<<10))
		return &control.Module{}, err
	}
	first, err := Uncached(t.Context(), dir, "first", compile)
	if err != nil {
		t.Fatal(err)
	}
	if room != size-free {
		t.Errorf("there was room for %d bytes", room)
	}
	worker, err := os.Open(first.Code.Name())
	if err != nil {
		t.Fatal(err)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := Uncached(t.Context(), dir, "second", compile); err == nil || !strings.Contains(err.Error(), "no more room") {
		t.Errorf("got %v", err)
	}
	if room != size-free-400<<10 {
		t.Errorf("there was room for %d bytes", room)
	}
	emptyFolder(t, dir)
	worker.Close()
	third, err := Uncached(t.Context(), dir, "third", compile)
	if err != nil {
		t.Fatal(err)
	}
	third.Close()
}

// The files of a dead process are removed.
func TestSweepUncached(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "uncached")
	entry, err := Uncached(t.Context(), dir, "digest", anyRoom((&compiler{code: "code"}).compile))
	if err != nil {
		t.Fatal(err)
	}
	if err := entry.Code.Close(); err != nil { // as the kernel does
		t.Fatal(err)
	}
	if err := SweepUncached(dir); err != nil {
		t.Fatal(err)
	}
	emptyFolder(t, dir)
}

// mount mounts a small file system for a test.
func mount(t *testing.T, options string) string {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, options); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir
}

func TestCacheOnAFullFileSystem(t *testing.T) {
	dir := mount(t, "size=64k")
	c := open(t, filepath.Join(dir, "cache"))
	big := func(_ context.Context, out *os.File) (*control.Module, error) {
		_, err := out.Write(make([]byte, 1<<20))
		if err != nil {
			err = fmt.Errorf("compile: %w", err)
		}
		return &control.Module{}, err
	}
	if _, err := c.Load(t.Context(), digestOf("module"), big); !Unusable(err) {
		t.Errorf("got %v", err)
	}
	wantFiles(t, c)
}

func TestReadOnlyCache(t *testing.T) {
	dir := mount(t, "")
	c := open(t, filepath.Join(dir, "cache"))
	made := &compiler{code: "code"}
	load(t, c, digestOf("1"), made.compile)
	if err := unix.Mount("", dir, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	if got := load(t, c, digestOf("1"), made.compile); got != "code" || made.runs != 1 {
		t.Errorf("got %q after %d compilations", got, made.runs)
	}
	if _, err := c.Load(t.Context(), digestOf("2"), made.compile); !Unusable(err) {
		t.Errorf("got %v", err)
	}
	if _, err := Open(filepath.Join(dir, "other"), engine); !Unusable(err) {
		t.Errorf("got %v", err)
	}
	if err := Sweep(filepath.Join(dir, "cache")); err != nil {
		t.Error(err)
	}
}

func TestUnusableIsNotAnyError(t *testing.T) {
	for _, err := range []error{nil, errors.New("not a module"), context.Canceled, os.ErrNotExist} {
		if Unusable(err) {
			t.Errorf("%v", err)
		}
	}
}

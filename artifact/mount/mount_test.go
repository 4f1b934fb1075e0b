package mount

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/fstest"
	"time"

	"golang.org/x/sys/unix"

	"github.com/wasmshim/containerd-shim-wasm/artifact/internal/testbucket"
	"github.com/wasmshim/containerd-shim-wasm/artifact/internal/testmount"
	"github.com/wasmshim/containerd-shim-wasm/artifact/object"
)

// TestMain also is the process that testmount.OpenOnce starts.
func TestMain(m *testing.M) {
	testmount.Main()
	os.Exit(m.Run())
}

// ended unmounts at the end of the test, which has to end the server.
func ended(t testing.TB, s *Server, target string) {
	t.Cleanup(func() {
		if err := unix.Unmount(target, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
		select {
		case <-s.Done():
		case <-time.After(10 * time.Second):
			t.Error("the server does not end with its mount")
		}
	})
}

func mountFile(t testing.TB, f File, log *slog.Logger) (string, *Server) {
	t.Helper()
	target := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(target, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := ServeFile(testmount.Attach(t, target, 0o100644), f, log)
	if err != nil {
		t.Fatal(err)
	}
	ended(t, s, target)
	testmount.OpenOnce(t, target)
	return target, s
}

func mountTree(t testing.TB, tree Tree, log *slog.Logger) (string, *Server) {
	t.Helper()
	target := t.TempDir()
	s, err := ServeTree(testmount.Attach(t, target, 0o40755), tree, log)
	if err != nil {
		t.Fatal(err)
	}
	ended(t, s, target)
	for name := range tree.Files {
		testmount.OpenOnce(t, filepath.Join(target, name))
		break
	}
	return target, s
}

func newCache(t testing.TB, limit int64) *object.Cache {
	t.Helper()
	c, err := object.NewCache(limit)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func random(n int) []byte {
	p := make([]byte, n)
	_, _ = rand.Read(p)
	return p
}

func TestServeFile(t *testing.T) {
	b := testbucket.Start(t).Bucket(t)
	for _, size := range []int{0, 1, 4095, object.BlockSize, object.BlockSize + 1, 5<<20 + 123} {
		content := random(size)
		key := fmt.Sprint("file-", size)
		info := testbucket.Put(t, b, key, content)
		start := time.Now()
		target, _ := mountFile(t, File{Object: newCache(t, 8<<20).Open(b, info), UID: 7, GID: 8}, slog.Default())
		found, err := os.Stat(target)
		if err != nil {
			t.Fatal(err)
		}
		stat := found.Sys().(*syscall.Stat_t)
		if found.Mode() != 0o644 || found.Size() != int64(size) || stat.Uid != 7 || stat.Gid != 8 || stat.Nlink != 1 || found.ModTime().Sub(start).Abs() > time.Minute {
			t.Errorf("%d bytes: %v %d %+v", size, found.Mode(), found.Size(), stat)
		}
		if got, err := os.ReadFile(target); err != nil || !bytes.Equal(got, content) {
			t.Errorf("%d bytes: read %d: %v", size, len(got), err)
		}
		if f, err := os.OpenFile(target, os.O_WRONLY, 0); !errors.Is(err, unix.EROFS) {
			f.Close()
			t.Errorf("open for writing: %v", err)
		}
	}
}

func TestServeTree(t *testing.T) {
	b := testbucket.Start(t).Bucket(t)
	cache := newCache(t, 8<<20)
	want := map[string][]byte{"a": random(10), "d/b": random(300 << 10), "d/e/c": nil, "d/e/f": random(1)}
	tree := Tree{Files: map[string]File{}, UID: 3}
	names := []string{}
	for name, content := range want {
		testbucket.Put(t, b, "prefix/"+name, content)
		names = append(names, name)
	}
	for info, err := range b.List(t.Context(), "prefix/") {
		if err != nil {
			t.Fatal(err)
		}
		tree.Files[strings.TrimPrefix(info.Key, "prefix/")] = File{Object: cache.Open(b, info), Mode: 0o600}
	}
	target, _ := mountTree(t, tree, slog.Default())
	if err := fstest.TestFS(os.DirFS(target), names...); err != nil {
		t.Error(err)
	}
	for name, content := range want {
		if got, err := os.ReadFile(filepath.Join(target, name)); err != nil || !bytes.Equal(got, content) {
			t.Errorf("%s: read %d of %d: %v", name, len(got), len(content), err)
		}
	}
	if found, err := os.Stat(filepath.Join(target, "d/e")); err != nil || found.Mode() != 0o755|fs.ModeDir || found.Sys().(*syscall.Stat_t).Uid != 3 {
		t.Errorf("%v: %v", found, err)
	}
	if found, err := os.Stat(filepath.Join(target, "d/b")); err != nil || found.Mode() != 0o600 {
		t.Errorf("%v: %v", found, err)
	}
	if _, err := os.Stat(filepath.Join(target, "d/x")); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
}

func TestTreeRefuses(t *testing.T) {
	for _, names := range [][]string{{"a", "a/b"}, {"/a"}, {"a/"}, {""}, {"a//b"}, {"../a"}, {"a/./b"}, {"a\x00b"}, {strings.Repeat("a", 256)}, {"a/b/c", "a/b"}} {
		tree := Tree{Files: map[string]File{}}
		for _, name := range names {
			tree.Files[name] = File{}
		}
		if err := newFiles(nil, nil, slog.Default()).plant(tree); err == nil {
			t.Errorf("%q is accepted", names)
		}
	}
}

// An object that is replaced is an error from then on, and the log says so once.
func TestReplaced(t *testing.T) {
	b := testbucket.Start(t).Bucket(t)
	info := testbucket.Put(t, b, "key", random(2<<20))
	var log bytes.Buffer
	target, s := mountFile(t, File{Object: newCache(t, 8<<20).Open(b, info)}, slog.New(slog.NewTextHandler(&log, nil)))
	f, err := os.Open(target)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.ReadAt(make([]byte, 1), 0); err != nil {
		t.Fatal(err)
	}
	testbucket.Put(t, b, "key", random(2<<20))
	for range 3 {
		if _, err := f.ReadAt(make([]byte, 1), 1<<20); !errors.Is(err, unix.EIO) {
			t.Errorf("read what was replaced: %v", err)
		}
	}
	s.Close()
	if n := strings.Count(log.String(), "\n"); n != 1 || !strings.Contains(log.String(), "key=key code=PreconditionFailed") {
		t.Errorf("logged %d lines: %s", n, &log)
	}
	if _, err := f.ReadAt(make([]byte, 1), 1<<20); err == nil || errors.Is(err, io.EOF) {
		t.Errorf("read what nobody serves: %v", err)
	}
}

package shim

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/sirupsen/logrus"
	"golang.org/x/sys/unix"
)

// A program that was taken over can leave folders in folders: more than the daemon may open.
func TestRemoveDeepTree(t *testing.T) {
	at := filepath.Join(t.TempDir(), "spool")
	outside := filepath.Join(t.TempDir(), "outside")
	if err := errors.Join(os.WriteFile(outside, nil, 0o600), os.MkdirAll(at+"/a/b/c", 0o700), os.WriteFile(at+"/a/b/file", nil, 0o600),
		os.Symlink(filepath.Dir(outside), at+"/link"), os.Symlink(filepath.Dir(outside), at+"/a/b/c/link"), unix.Mkfifo(at+"/a/fifo", 0o600)); err != nil {
		t.Fatal(err)
	}
	const depth = 1000
	dig(t, at, depth)
	var before unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &before); err != nil {
		t.Fatal(err)
	}
	limit := before
	limit.Cur = depth / 2
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	defer unix.Setrlimit(unix.RLIMIT_NOFILE, &before)
	for range 2 { // the second time it has gone
		if err := removeTree(t.Context(), at); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := os.Lstat(at); !os.IsNotExist(err) {
		t.Errorf("the folder is still there: %v", err)
	}
	if _, err := os.Stat(outside); err != nil {
		t.Errorf("a link was followed: %v", err)
	}
}

// dig makes folders in each other.
func dig(t *testing.T, at string, depth int) {
	t.Helper()
	dir, err := openFolder(unix.AT_FDCWD, at)
	for range depth {
		if err == nil {
			err = unix.Mkdirat(int(dir.Fd()), "d", 0o700)
		}
		if err != nil {
			t.Fatal(err)
		}
		above := dir
		dir, err = openFolder(int(dir.Fd()), "d")
		above.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	dir.Close()
}

// Nobody who makes ever more files keeps the daemon from going on.
func TestRemoveEnds(t *testing.T) {
	at := t.TempDir()
	if err := os.WriteFile(at+"/file", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := removeTree(ctx, at); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

// The delete verb removes the folder whatever else fails: containerd does not run it again.
func TestDeleteRemovesTheSpool(t *testing.T) {
	bundle, spool := t.TempDir(), filepath.Join(t.TempDir(), "spool")
	if err := errors.Join(os.MkdirAll(spool+"/left", 0o700), saveState(bundle, state{Spool: spool})); err != nil {
		t.Fatal(err)
	}
	d := &daemon{flags: Flags{ID: "x", Namespace: "test"}, log: logrus.NewEntry(logrus.StandardLogger())}
	if _, err := d.delete(bundle); err == nil {
		t.Error("a container without a specification was cleaned up")
	}
	if _, err := os.Stat(spool); !os.IsNotExist(err) {
		t.Errorf("the folder is still there: %v", err)
	}
}

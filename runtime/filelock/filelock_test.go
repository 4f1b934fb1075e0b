package filelock

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

func newFile(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, []byte("code"), 0o444); err != nil {
		t.Fatal(err)
	}
	return path
}

// A reader, such as a container, can share a file and no more: whatever it does, others share it too.
func TestReaderCannotExclude(t *testing.T) {
	path := newFile(t)
	reader, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	if err := Exclude(reader); !errors.Is(err, unix.EBADF) {
		t.Errorf("an exclusive lock without the right to write: %v", err)
	}
	if err := unix.Flock(int(reader.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		shared, err := OpenShared(path)
		if err != nil {
			t.Fatal(err)
		}
		defer shared.Close()
	}
}

// A lease would make open(2) wait until it is given back.
func TestLeaseMakesNobodyWait(t *testing.T) {
	path := newFile(t)
	holder, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer holder.Close()
	if _, err := unix.FcntlInt(holder.Fd(), unix.F_SETLEASE, unix.F_WRLCK); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenShared(path); !errors.Is(err, ErrBusy) {
		t.Errorf("got %v", err)
	}
	if _, err := OpenExclusive(path); !errors.Is(err, ErrBusy) {
		t.Errorf("got %v", err)
	}
	if used, err := InUse(path); !used || err != nil {
		t.Errorf("got %v, %v", used, err)
	}
}

func TestExclusiveAndShared(t *testing.T) {
	path := newFile(t)
	wantUse := func(want bool) {
		t.Helper()
		if used, err := InUse(path); used != want || err != nil {
			t.Errorf("in use: %v, %v", used, err)
		}
	}
	wantUse(false)
	shared, err := OpenShared(path)
	if err != nil {
		t.Fatal(err)
	}
	wantUse(true)
	if _, err := OpenExclusive(path); !errors.Is(err, ErrBusy) {
		t.Errorf("excluded who shares: %v", err)
	}
	shared.Close()
	exclusive, err := OpenExclusive(path)
	if err != nil {
		t.Fatal(err)
	}
	defer exclusive.Close()
	wantUse(true)
	if _, err := OpenShared(path); !errors.Is(err, ErrBusy) {
		t.Errorf("shared what is excluded: %v", err)
	}
}

func TestNoLinkIsFollowed(t *testing.T) {
	path := newFile(t)
	link := path + ".link"
	if err := os.Symlink(path, link); err != nil {
		t.Fatal(err)
	}
	for _, open := range []func(string) (*os.File, error){OpenShared, OpenExclusive} {
		if _, err := open(link); !errors.Is(err, unix.ELOOP) {
			t.Errorf("got %v", err)
		}
	}
}

func TestWaitEndsWithTheContext(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	release, err := Try(path)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	got := make(chan error)
	go func() {
		_, err := Wait(ctx, path)
		got <- err
	}()
	cancel()
	if err := <-got; !errors.Is(err, context.Canceled) || !errors.Is(err, ErrBusy) {
		t.Errorf("got %v", err)
	}
	release()
	if release, err = Wait(t.Context(), path); err != nil {
		t.Fatal(err)
	}
	release()
	if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the lock's file stays: %v", err)
	}
}

func TestAnyTakesTheFreeOne(t *testing.T) {
	dir := t.TempDir()
	paths := []string{filepath.Join(dir, "0"), filepath.Join(dir, "1")}
	first, err := Any(t.Context(), paths)
	if err != nil {
		t.Fatal(err)
	}
	second, err := Any(t.Context(), paths)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Any(ctx, paths); !errors.Is(err, ErrBusy) {
		t.Errorf("got %v", err)
	}
	second()
	again, err := Any(t.Context(), paths)
	if err != nil {
		t.Fatal(err)
	}
	again()
	first()
}

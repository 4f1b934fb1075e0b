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

// A reader, such as a container, can only share a file: others can always share it, too.
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

// A lease would make open(2) wait until the lease is released.
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
	lock, err := Try(path)
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
	lock.Release()
	if lock, err = Wait(t.Context(), path); err != nil {
		t.Fatal(err)
	}
	lock.Release()
	if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the lock's file stays: %v", err)
	}
}

func TestWaitTakesTheFreeOne(t *testing.T) {
	dir := t.TempDir()
	paths := []string{filepath.Join(dir, "0"), filepath.Join(dir, "1")}
	first, err := Wait(t.Context(), paths...)
	if err != nil {
		t.Fatal(err)
	}
	second, err := Wait(t.Context(), paths...)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Wait(ctx, paths...); !errors.Is(err, ErrBusy) {
		t.Errorf("got %v", err)
	}
	second.Release()
	again, err := Wait(t.Context(), paths...)
	if err != nil {
		t.Fatal(err)
	}
	again.Release()
	first.Release()
}

// Cleanups that remove unlocked files never see a new file without its lock.
func TestCreateShared(t *testing.T) {
	dir := t.TempDir()
	done := make(chan struct{})
	swept := make(chan struct{})
	go func() {
		defer close(swept)
		for {
			select {
			case <-done:
				return
			default:
			}
			names, _ := filepath.Glob(filepath.Join(dir, "*.part"))
			for _, name := range names {
				if f, err := OpenExclusive(name); err == nil {
					os.Remove(name)
					f.Close()
				}
			}
		}
	}()
	for range 1000 {
		f, err := CreateShared(dir, "file.*.part")
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Remove(f.Name()); err != nil {
			t.Fatalf("a new file was removed: %v", err)
		}
		f.Close()
	}
	close(done)
	<-swept
}

// The next holder finds the note of a dead holder. After a release there is none.
func TestNote(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	wantNote := func(lock *Lock, want string) {
		t.Helper()
		if note, err := lock.Note(); string(note) != want || err != nil {
			t.Errorf("the note is %q, %v; want %q", note, err, want)
		}
	}
	lock, err := Try(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, note := range []string{"a long one", "short"} {
		if err := lock.SetNote([]byte(note)); err != nil {
			t.Fatal(err)
		}
		wantNote(lock, note)
	}
	lock.file.Close() // as the kernel does for a dead process
	if lock, err = Try(path); err != nil {
		t.Fatal(err)
	}
	wantNote(lock, "short")
	lock.Release()
	if lock, err = Try(path); err != nil {
		t.Fatal(err)
	}
	wantNote(lock, "")
	lock.Release()
}

// A daemon of an earlier release holds the lock of a file with flock(2).
func TestTryExcludesFlock(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	before, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer before.Close()
	if err := unix.Flock(int(before.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	if _, err := Try(path); !errors.Is(err, ErrBusy) {
		t.Errorf("beside one of flock(2): %v", err)
	}
	if err := unix.Flock(int(before.Fd()), unix.LOCK_UN); err != nil {
		t.Fatal(err)
	}
	lock, err := Try(path)
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Release()
	if err := unix.Flock(int(before.Fd()), unix.LOCK_EX|unix.LOCK_NB); !errors.Is(err, unix.EWOULDBLOCK) {
		t.Errorf("the other way round: %v", err)
	}
}

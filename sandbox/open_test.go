package sandbox

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// A file that a neighbour exchanges for something else while it is opened is opened as it was found, or refused. What is put
// in its place is never opened: a device would act.
func TestNothingButFilesIsOpened(t *testing.T) {
	dir := t.TempDir()
	file, other := filepath.Join(dir, "app.wasm"), filepath.Join(dir, "other")
	if err := errors.Join(os.WriteFile(file, []byte("app"), 0o600), unix.Mkfifo(other, 0o600)); err != nil {
		t.Fatal(err)
	}
	events, err := unix.InotifyInit1(unix.IN_NONBLOCK | unix.IN_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(events)
	if _, err := unix.InotifyAddWatch(events, other, unix.IN_OPEN); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for range 20000 {
			if err := unix.Renameat2(unix.AT_FDCWD, file, unix.AT_FDCWD, other, unix.RENAME_EXCHANGE); err != nil {
				t.Error(err)
				return
			}
		}
	}()
	s := &Sandbox{thread: newThread(), base: "/", root: -1}
	defer s.Close()
	if err := s.thread.do(func() error { return s.openRoot(dir) }); err != nil {
		t.Fatal(err)
	}
	for exchanging := true; exchanging; {
		select {
		case <-done:
			exchanging = false
		default:
		}
		f, err := s.OpenFile("/app.wasm")
		if err == nil {
			f.Close()
		} else if !errors.Is(err, ErrNotRegular) {
			t.Error(err)
		}
	}
	if n, err := unix.Read(events, make([]byte, 4096)); err != unix.EAGAIN {
		t.Errorf("the FIFO was opened: %d, %v", n, err)
	}
}

package argo

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// The daemon reads on a volume to which other containers write. What they exchange a file for is never opened there: it may
// be a device.
func TestNothingButFilesIsOpened(t *testing.T) {
	dir := t.TempDir()
	file, other := filepath.Join(dir, "exitcode"), filepath.Join(dir, "other")
	if err := errors.Join(os.WriteFile(file, []byte("0"), 0o600), unix.Mkfifo(other, 0o600)); err != nil {
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
	volume, err := openVolume(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer volume.close()
	for exchanging := true; exchanging; {
		select {
		case <-done:
			exchanging = false
		default:
		}
		if f, err := volume.openRegular("exitcode", 0); err == nil {
			f.Close()
		}
	}
	if n, err := unix.Read(events, make([]byte, 4096)); err != unix.EAGAIN {
		t.Errorf("the FIFO was opened: %d, %v", n, err)
	}
}

// Package testexchange exchanges a file for something else while a test opens it. It holds no code that is shipped.
package testexchange

import (
	"errors"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// rounds is how often the file is exchanged.
const rounds = 20000

// ForFIFO makes a file and a FIFO beside it, exchanges their names, and calls open meanwhile, again and again. It fails the
// test if the FIFO has ever been opened.
func ForFIFO(t testing.TB, file, content string, open func()) {
	t.Helper()
	other := file + ".other"
	if err := errors.Join(os.WriteFile(file, []byte(content), 0o600), unix.Mkfifo(other, 0o600)); err != nil {
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
		for range rounds {
			if err := unix.Renameat2(unix.AT_FDCWD, file, unix.AT_FDCWD, other, unix.RENAME_EXCHANGE); err != nil {
				t.Error(err)
				return
			}
		}
	}()
	for exchanging := true; exchanging; {
		select {
		case <-done:
			exchanging = false
		default:
		}
		open()
	}
	if n, err := unix.Read(events, make([]byte, 4096)); err != unix.EAGAIN {
		t.Errorf("the FIFO was opened: %d, %v", n, err)
	}
}

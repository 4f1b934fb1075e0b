package shim

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// What a container has put in the place of an artifact is looked at, and not opened: it may be a device.
func TestIsLeftOpensNothing(t *testing.T) {
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	if err := errors.Join(
		os.WriteFile(at("empty"), nil, 0o600), os.WriteFile(at("full"), []byte("x"), 0o600), unix.Mkfifo(at("fifo"), 0o600), os.Symlink("empty", at("link")),
		os.Mkdir(at("folder"), 0o700), os.Mkdir(at("used"), 0o700), os.WriteFile(at("used/x"), nil, 0o600),
	); err != nil {
		t.Fatal(err)
	}
	events, err := unix.InotifyInit1(unix.IN_NONBLOCK | unix.IN_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(events)
	for _, name := range []string{"empty", "fifo"} {
		if _, err := unix.InotifyAddWatch(events, at(name), unix.IN_OPEN); err != nil {
			t.Fatal(err)
		}
	}
	for name, want := range map[string]bool{"empty": true, "full": false, "fifo": false, "link": false, "folder": true, "used": false, "missing": false} {
		if got := isLeft(at(name)); got != want {
			t.Errorf("%s: %v, want %v", name, got, want)
		}
	}
	if n, err := unix.Read(events, make([]byte, 4096)); err != unix.EAGAIN {
		t.Errorf("something was opened: %d, %v", n, err)
	}
}

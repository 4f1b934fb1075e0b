package stdio

import (
	"context"
	"fmt"
	"io"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// openTerminal makes a pseudo terminal, gives the worker its slave side and
// copies between the master side and containerd's streams.
func (sio *Streams) openTerminal(ctx context.Context, s Names, owner Owner) error {
	master, slave, err := newTerminal()
	if err != nil {
		return fmt.Errorf("create terminal: %w", err)
	}
	sio.console = master
	sio.child = append(sio.child, slave)
	for range 2 {
		dup, err := duplicate(slave)
		if err != nil {
			return err
		}
		sio.child = append(sio.child, dup)
	}
	if err := sio.copyInput(s.Stdin, master); err != nil {
		return err
	}
	return sio.copyOutput(ctx, s, owner, master)
}

func newTerminal() (master, slave *os.File, err error) {
	fd, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, nil, &os.PathError{Op: "open", Path: "/dev/ptmx", Err: err}
	}
	master = os.NewFile(uintptr(fd), "/dev/ptmx")
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0)
	}
	if err == nil {
		slave, err = os.OpenFile("/dev/pts/"+strconv.Itoa(n), os.O_RDWR|unix.O_NOCTTY, 0)
	}
	if err != nil {
		master.Close()
		return nil, nil, err
	}
	return master, slave, nil
}

func (sio *Streams) copyInput(path string, master *os.File) error {
	if path == "" {
		return nil
	}
	r, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	w, err := os.OpenFile(path, os.O_WRONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		r.Close()
		return err
	}
	sio.stdin = w
	sio.keep = append(sio.keep, r)
	go func() { _, _ = io.Copy(master, r) }()
	return nil
}

func (sio *Streams) copyOutput(ctx context.Context, s Names, owner Owner, master *os.File) error {
	s.Stderr = ""
	stdout, stderr, err := sio.openOutputs(ctx, s, owner)
	if err != nil {
		return err
	}
	stderr.Close()
	sio.copies.Add(1)
	go func() {
		defer sio.copies.Done()
		defer stdout.Close()
		// A read of a master fails with EIO when the last slave is closed: that is the end.
		_, _ = io.Copy(stdout, master)
	}()
	return nil
}

// Resize sets a terminal's size, in characters.
func (sio *Streams) Resize(width, height uint32) error {
	if sio.console == nil {
		return nil
	}
	size := &unix.Winsize{Col: uint16(width), Row: uint16(height)}
	raw, err := sio.console.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	if err := raw.Control(func(fd uintptr) { failed = unix.IoctlSetWinsize(int(fd), unix.TIOCSWINSZ, size) }); err != nil {
		return err
	}
	if failed != nil {
		return fmt.Errorf("resize terminal to %dx%d: %w", width, height, failed)
	}
	return nil
}

package shim

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// fifoWriter writes whole lines to a FIFO and never waits: while containerd is
// away nobody reads, and a full FIFO must not stop the daemon. What does not fit
// is lost.
type fifoWriter struct{ fd int }

// openFIFO opens a FIFO for reading too, so that it has a reader at all times
// and a write never fails with a broken pipe.
func openFIFO(path string) (fifoWriter, error) {
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return fifoWriter{}, &os.PathError{Op: "open", Path: path, Err: err}
	}
	return fifoWriter{fd}, nil
}

func (w fifoWriter) Write(p []byte) (int, error) {
	n, err := unix.Write(w.fd, p)
	if errors.Is(err, unix.EAGAIN) {
		return len(p), nil
	}
	return n, err
}

// becomeStderr makes the FIFO the daemon's standard error, which the start verb has left at
// /dev/null: there the Go runtime writes why it ends the process (a panic, a fatal signal, a
// data race). Its writes neither wait nor raise SIGPIPE, as Write's: the descriptors share one
// open file. No child of the daemon's inherits it unasked.
func (w fifoWriter) becomeStderr() error {
	if err := unix.Dup3(w.fd, unix.Stderr, 0); err != nil {
		return os.NewSyscallError("dup3", err)
	}
	return nil
}

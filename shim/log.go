package shim

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// fifoWriter writes whole lines to a FIFO and never waits: while containerd is away the FIFO has no reader,
// and a full FIFO must not stop the daemon. Lines that do not fit are lost.
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

// becomeStderr makes the FIFO the daemon's standard error, which the start verb has left at /dev/null. The Go
// runtime writes there why it ends the process (a panic, a fatal signal, a data race). Like Write's, its
// writes neither wait nor raise SIGPIPE: the descriptors share one open file. Children of the daemon do not
// inherit it unless asked.
func (w fifoWriter) becomeStderr() error {
	if err := unix.Dup3(w.fd, unix.Stderr, 0); err != nil {
		return os.NewSyscallError("dup3", err)
	}
	return nil
}

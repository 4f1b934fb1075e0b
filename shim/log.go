package shim

import (
	"errors"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// fifoWriter writes whole lines to a FIFO and never waits: while containerd is
// away nobody reads, and a full FIFO must not stop the daemon. What does not fit
// is lost.
type fifoWriter struct{ fd int }

// openFIFO opens a FIFO for reading too, so that it has a reader at all times
// and a write never fails with a broken pipe.
func openFIFO(path string) (io.Writer, error) {
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
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

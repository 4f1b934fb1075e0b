package argo

import (
	"errors"
	"io"
	"log/slog"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// capture copies what a guest writes into the volume, besides passing it on.
type capture struct {
	stdout, stderr *os.File // what the guest writes to
	readers        []*os.File
	copied         sync.WaitGroup
	files          []*os.File
}

// newCapture opens the files named stdout and combined in dir, to append to them:
// each attempt's output follows that of the one before.
func newCapture(volume *tree, dir string, stdout, stderr *os.File, log *slog.Logger) (*capture, error) {
	c := new(capture)
	only, err := c.append(volume, dir+"/stdout")
	if err != nil {
		return nil, err
	}
	both, err := c.append(volume, dir+"/combined")
	if err != nil {
		return nil, err
	}
	c.stdout, err = c.pipe(log, stdout, only, both)
	if err != nil {
		return nil, err
	}
	c.stderr, err = c.pipe(log, stderr, both)
	if err != nil {
		return nil, err
	}
	return c, nil
}

func (c *capture) append(volume *tree, name string) (*os.File, error) {
	f, err := volume.open(name, unix.O_WRONLY|unix.O_CREAT|unix.O_APPEND, 0o666)
	if err != nil {
		c.close()
		return nil, err
	}
	c.files = append(c.files, f)
	info, err := f.Stat()
	if err == nil {
		err = mustBeRegular(name, info)
	}
	if err != nil {
		c.close()
		return nil, err
	}
	return f, nil
}

// pipe returns the writing end of a pipe that is copied to all writers.
func (c *capture) pipe(log *slog.Logger, writers ...*os.File) (*os.File, error) {
	r, w, err := os.Pipe()
	if err != nil {
		c.close()
		return nil, err
	}
	c.readers = append(c.readers, r)
	c.copied.Go(func() { spread(r, writers, log) })
	return w, nil
}

// started closes this process's ends of the pipes once the guest has its own.
func (c *capture) started() {
	c.stdout.Close()
	c.stderr.Close()
}

// close waits until all that the ended guest wrote is copied. It does not wait for
// others that may hold the pipes.
func (c *capture) close() {
	for _, w := range []*os.File{c.stdout, c.stderr} {
		if w != nil {
			w.Close()
		}
	}
	for _, r := range c.readers {
		_ = r.SetReadDeadline(time.Unix(1, 0))
	}
	c.copied.Wait()
	for _, f := range append(c.readers, c.files...) {
		f.Close()
	}
}

// spread copies what r reads to all writers. It leaves out a writer that has failed, because
// logs that cannot be kept must not stop the guest. After r's deadline it copies what is
// already in the pipe, and ends.
func spread(r *os.File, writers []*os.File, log *slog.Logger) {
	failed := make([]bool, len(writers))
	buffer := make([]byte, 32<<10)
	read := r.Read
	for {
		n, err := read(buffer)
		for i, w := range writers {
			if failed[i] || n <= 0 {
				continue
			}
			if _, err := w.Write(buffer[:n]); err != nil {
				failed[i] = true
				log.Error("output of the guest is lost", "file", w.Name(), "error", err)
			}
		}
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			read = func(b []byte) (int, error) { return readNow(r, b) }
		case err != nil:
			return
		}
	}
}

// readNow reads what is in a pipe, and returns io.EOF if it is empty.
func readNow(r *os.File, b []byte) (n int, err error) {
	raw, err := r.SyscallConn()
	if err != nil {
		return 0, err
	}
	// Control, not Read: Read waits, and fails at once after the deadline.
	if ctl := raw.Control(func(fd uintptr) { n, err = unix.Read(int(fd), b) }); ctl != nil {
		return 0, ctl
	}
	if errors.Is(err, unix.EINTR) {
		return 0, nil
	}
	if n <= 0 || err != nil {
		return 0, io.EOF
	}
	return n, nil
}

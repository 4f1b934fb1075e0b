// Package stdio opens the standard streams of a process as containerd names them: FIFOs, files, logging
// binaries and terminals.
//
// It copies a guest's output only for a terminal. The paths come from containerd, never from a guest.
package stdio

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Names are those of a process's standard streams as containerd gives
// them: paths of FIFOs or URIs.
type Names struct {
	Stdin, Stdout, Stderr string
	Terminal              bool
}

// Owner is the container that a process belongs to; logging binaries get it in their environment.
type Owner struct{ Namespace, ID string }

// Streams holds a process's standard streams on the daemon's side. A worker gets containerd's FIFOs
// themselves, so that a guest's output is not copied; only a terminal's data passes through the daemon.
type Streams struct {
	child   []*os.File // the worker's descriptors 0, 1 and 2; closed once it has them
	stdin   io.Closer  // keeps the stdin FIFO open for writing until CloseIO
	keep    []io.Closer
	console *os.File // a terminal's master side
	copies  sync.WaitGroup
	logger  *exec.Cmd
}

// Open opens a process's streams. It waits for a logging binary until ctx ends.
func Open(ctx context.Context, names Names, owner Owner) (*Streams, error) {
	sio := &Streams{}
	if err := sio.open(ctx, names, owner); err != nil {
		sio.CloseChild()
		sio.Close()
		return nil, fmt.Errorf("open standard streams: %w", err)
	}
	return sio, nil
}

func (sio *Streams) open(ctx context.Context, s Names, owner Owner) error {
	if s.Terminal {
		return sio.openTerminal(ctx, s, owner)
	}
	stdin, err := sio.openStdin(s.Stdin)
	if err != nil {
		return err
	}
	sio.child = append(sio.child, stdin)
	stdout, stderr, err := sio.openOutputs(ctx, s, owner)
	if err != nil {
		return err
	}
	sio.child = append(sio.child, stdout, stderr)
	return nil
}

// openStdin opens the reading end for the worker and keeps a writing end, so that the guest sees end of file
// only after CloseIO.
func (sio *Streams) openStdin(path string) (*os.File, error) {
	if path == "" {
		return os.OpenFile(os.DevNull, os.O_RDONLY, 0)
	}
	r, err := openBlocking(path, unix.O_RDONLY)
	if err != nil {
		return nil, err
	}
	w, err := os.OpenFile(path, os.O_WRONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		r.Close()
		return nil, err
	}
	sio.stdin = w
	return r, nil
}

// openOutputs opens stdout and stderr by the scheme of stdout, as the stock shim
// does.
func (sio *Streams) openOutputs(ctx context.Context, s Names, owner Owner) (stdout, stderr *os.File, err error) {
	u, err := url.Parse(s.Stdout)
	if err != nil {
		return nil, nil, fmt.Errorf("stdout %q: %w", s.Stdout, err)
	}
	switch u.Scheme {
	case "", "fifo":
	case "file":
		stdout, err = openLogFile(u.Path)
		if err != nil {
			return nil, nil, err
		}
		stderr, err = duplicate(stdout)
		return stdout, stderr, err
	case "binary", "binary-v2":
		return sio.startLogger(ctx, u, owner)
	default:
		return nil, nil, fmt.Errorf("stdout %q: scheme %q is unknown (fifo, file and binary are known)", s.Stdout, u.Scheme)
	}
	if stdout, err = sio.openOutput(s.Stdout); err != nil {
		return nil, nil, err
	}
	if stderr, err = sio.openOutput(s.Stderr); err != nil {
		stdout.Close()
	}
	return stdout, stderr, err
}

// openOutput opens a FIFO for the worker to write to and keeps a reading end: while containerd restarts there
// is no other reader, and a guest that writes then must wait, not die of a broken pipe.
func (sio *Streams) openOutput(path string) (*os.File, error) {
	if path == "" {
		return os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	}
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if info.Mode()&os.ModeNamedPipe == 0 {
		return os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
	}
	r, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	sio.keep = append(sio.keep, r)
	return openBlocking(path, unix.O_WRONLY)
}

// openBlocking opens a FIFO without waiting for its other end and returns it in blocking mode, which the
// worker expects of its streams.
func openBlocking(path string, mode int) (*os.File, error) {
	fd, err := unix.Open(path, mode|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	if err := unix.SetNonblock(fd, false); err != nil {
		unix.Close(fd)
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	return os.NewFile(uintptr(fd), path), nil
}

func openLogFile(path string) (*os.File, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, err
	}
	return os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
}

func duplicate(f *os.File) (*os.File, error) {
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "duplicate", Path: f.Name(), Err: err}
	}
	return os.NewFile(uintptr(fd), f.Name()), nil
}

// startLogger starts a logging binary with the reading ends of stdout and stderr as its descriptors 3 and 4.
// The binary closes descriptor 5 when it is ready, and startLogger waits for that (containerd's pkg/logging,
// "binary" URIs; "binary-v2" writes a byte).
func (sio *Streams) startLogger(ctx context.Context, u *url.URL, owner Owner) (stdout, stderr *os.File, err error) {
	var pipes []*os.File
	defer func() {
		for _, f := range pipes {
			f.Close()
		}
	}()
	ends := make([]*os.File, 0, 6)
	for range 3 {
		r, w, err := os.Pipe()
		if err != nil {
			return nil, nil, err
		}
		pipes, ends = append(pipes, r, w), append(ends, r, w)
	}
	cmd := loggerCommand(u, owner)
	cmd.ExtraFiles = []*os.File{ends[0], ends[2], ends[5]}
	if err := cmd.Start(); err != nil {
		return nil, nil, fmt.Errorf("start logging binary %s: %w", u.Path, err)
	}
	sio.logger = cmd
	ends[5].Close()
	stop := context.AfterFunc(ctx, func() { _ = ends[4].SetReadDeadline(time.Now()) })
	defer stop()
	n, err := ends[4].Read(make([]byte, 1))
	if err != nil && !errors.Is(err, io.EOF) || n == 0 && u.Scheme == "binary-v2" {
		return nil, nil, fmt.Errorf("logging binary %s did not become ready: %w", u.Path, err)
	}
	if stdout, err = duplicate(ends[1]); err != nil {
		return nil, nil, err
	}
	stderr, err = duplicate(ends[3])
	return stdout, stderr, err
}

func loggerCommand(u *url.URL, owner Owner) *exec.Cmd {
	var args []string
	for k, values := range u.Query() {
		args = append(args, k)
		if len(values) > 0 {
			args = append(args, values[0])
		}
	}
	cmd := exec.Command(u.Path, args...)
	cmd.Env = append(os.Environ(), "CONTAINER_ID="+owner.ID, "CONTAINER_NAMESPACE="+owner.Namespace)
	return cmd
}

// Child returns the worker's descriptors 0, 1 and 2.
func (sio *Streams) Child() []*os.File { return sio.child }

// CloseChild closes the worker's ends once the worker has them.
func (sio *Streams) CloseChild() {
	for _, f := range sio.child {
		f.Close()
	}
	sio.child = nil
}

// CloseStdin lets the guest see the end of its input when containerd's side is
// closed too.
func (sio *Streams) CloseStdin() {
	if sio.stdin != nil {
		sio.stdin.Close()
	}
}

// Drain waits until a terminal's output has been passed on. It is called after the process has ended and
// before its exit is published.
func (sio *Streams) Drain(ctx context.Context) {
	done := make(chan struct{})
	go func() { sio.copies.Wait(); close(done) }()
	select {
	case <-done:
	case <-ctx.Done():
	}
}

// loggerGrace is how long a logging binary may take to end.
const loggerGrace = 12 * time.Second

// Close releases everything.
func (sio *Streams) Close() {
	sio.CloseStdin()
	for _, c := range sio.keep {
		c.Close()
	}
	if sio.console != nil {
		sio.console.Close()
	}
	if sio.logger == nil {
		return
	}
	// The logger has seen the end of both streams by now; the signal is for a logger that waits for something
	// else.
	_ = sio.logger.Process.Signal(syscall.SIGTERM)
	kill := time.AfterFunc(loggerGrace, func() { _ = sio.logger.Process.Kill() })
	_ = sio.logger.Wait()
	kill.Stop()
	sio.logger = nil
}

package mount

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"os"
	"sync"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// maxWrite is the most that one request reads or writes, in bytes.
const maxWrite = 128 << 10

// requestSize is room for a request: the kernel refuses a shorter buffer.
const requestSize = maxWrite + 4096

// requests are buffers for requests. A server that waits has none.
var requests = sync.Pool{New: func() any { return new([requestSize]byte) }}

// Server serves one mount.
type Server struct {
	device   *os.File
	conn     syscall.RawConn
	files    *files
	protocol *fuse.ProtocolServer
	log      *slog.Logger

	ctx     context.Context // ends with the mount
	cancel  context.CancelFunc
	running sync.WaitGroup // requests
	done    chan struct{}

	mu    sync.Mutex
	reads map[uint64]context.CancelFunc // by number of the request
}

// serve takes the descriptor over.
func serve(device *os.File, f *files, logger *slog.Logger) (*Server, error) {
	defer device.Close()
	// A descriptor of its own that Go's poller waits for: a mount that waits holds no thread, and Close ends the wait.
	fd, err := unix.FcntlInt(device.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("fcntl", err)
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		unix.Close(fd)
		return nil, os.NewSyscallError("fcntl", err)
	}
	s := &Server{device: os.NewFile(uintptr(fd), "/dev/fuse"), files: f, log: logger, done: make(chan struct{}), reads: map[uint64]context.CancelFunc{}}
	if s.conn, err = s.device.SyscallConn(); err != nil {
		s.device.Close()
		return nil, err
	}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	f.ctx = s.ctx
	s.protocol = fuse.NewProtocolServer(f, &fuse.MountOptions{
		MaxWrite:                 maxWrite,
		MaxBackground:            maxBackground,
		DisableXAttrs:            true,
		ExplicitDataCacheControl: true, // only this mount changes its files
		EnableSymlinkCaching:     true,
		ExtraCapabilities:        fuse.CAP_ATOMIC_O_TRUNC, // a file that is truncated at once is not fetched
		DisabledCapabilities:     fuse.CAP_PASSTHROUGH,
		Logger:                   log.New(io.Discard, "", 0),
		PanicHandler: func(v any) fuse.Status {
			logger.Error("serve a request of a mount: it is answered with EIO", "panic", fmt.Sprint(v))
			return fuse.EIO
		},
	})
	go s.loop()
	return s, nil
}

// maxBackground bounds the reads that the kernel sends ahead of its readers at the same time.
const maxBackground = 32

// Wait returns when the mount is gone or the server is closed.
func (s *Server) Wait() { <-s.done }

// Close ends the server. All requests end; each later one fails with ENOTCONN as soon as no process has another
// descriptor of the mount.
func (s *Server) Close() error {
	s.cancel()
	err := s.device.Close()
	<-s.done
	if errors.Is(err, os.ErrClosed) {
		return nil
	}
	return err
}

func (s *Server) loop() {
	for {
		request, whole, err := s.next()
		if err != nil {
			if !errors.Is(err, unix.ENODEV) && s.ctx.Err() == nil {
				s.log.Error("read requests of a mount: it is not served any more", "error", err)
			}
			break
		}
		s.running.Add(1)
		go func() {
			defer s.running.Done()
			s.handle(request)
			if whole != nil {
				requests.Put(whole)
			}
		}()
	}
	s.cancel()
	s.device.Close()
	s.running.Wait()
	s.files.close()
	close(s.done)
}

// next returns the next request. A long one is in a buffer that the caller puts back.
func (s *Server) next() (request []byte, whole *[requestSize]byte, err error) {
	waited := s.conn.Read(func(fd uintptr) bool {
		whole = requests.Get().(*[requestSize]byte)
		var n int
		for {
			// ENOENT means that the request was interrupted before it was read.
			if n, err = unix.Read(int(fd), whole[:]); err != unix.EINTR && err != unix.ENOENT {
				break
			}
		}
		if err == nil && n > 4096 {
			request = whole[:n]
			return true
		}
		if err == nil {
			request = append([]byte(nil), whole[:n]...)
		}
		requests.Put(whole)
		whole = nil
		return err != unix.EAGAIN
	})
	if s.ctx.Err() != nil {
		return nil, nil, s.ctx.Err()
	}
	if waited != nil { // Go's poller takes the end of a mount for an error of the descriptor
		if controlled := s.conn.Control(func(fd uintptr) { _, err = unix.Read(int(fd), make([]byte, requestSize)) }); controlled != nil {
			err = controlled
		}
		if err == nil {
			err = waited
		}
	}
	if err == nil && len(request) < headerSize {
		err = fmt.Errorf("a request of %d bytes", len(request))
	}
	return request, whole, err
}

// reply sends an answer. Nobody waits any more for one that the kernel does not take.
func (s *Server) reply(parts ...[]byte) {
	_ = s.conn.Control(func(fd uintptr) {
		for {
			if _, err := unix.Writev(int(fd), parts); err != unix.EINTR {
				return
			}
		}
	})
}

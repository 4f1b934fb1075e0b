// Package connection serves a file system of go-fuse on a descriptor of /dev/fuse that is mounted already.
//
// It uses go-fuse's protocol, and not its server, which keeps blocking threads and buffers for each mount and cannot be
// closed without an unmount. A connection that waits costs neither. Each request has a goroutine.
//
// The package never mounts or unmounts.
package connection

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"os"
	"sync"
	"syscall"
	"unsafe"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

const (
	// maxWrite is the most that one request reads or writes, in bytes.
	maxWrite = 128 << 10
	// requestSize is room for a request: the kernel refuses a shorter buffer.
	requestSize = maxWrite + 4096
	// smallAnswer is room for any answer without data: a target of a link has at most 4096 bytes.
	smallAnswer = 8192
	// maxBackground bounds the reads that the kernel sends ahead of its readers at the same time.
	maxBackground = 32
)

// Numbers of requests (linux/fuse.h) whose answers have data.
const (
	opRead     = 15
	opReaddir  = 28
	opReaddirP = 44
)

// buffers are those of long requests, and of long answers.
var buffers = sync.Pool{New: func() any { return new([maxWrite + smallAnswer]byte) }}

// Connection serves one mount.
type Connection struct {
	device   *os.File
	conn     syscall.RawConn
	protocol *fuse.ProtocolServer
	log      *slog.Logger
	ended    func()

	ctx     context.Context // ends with the mount
	cancel  context.CancelFunc
	running sync.WaitGroup // requests
	done    chan struct{}
}

// Options are those of a connection.
type Options struct {
	Log *slog.Logger
	// Ending is called when no further request comes. It ends requests that wait.
	Ending func()
	// Ended is called when no request runs any more.
	Ended func()
}

// Serve takes the descriptor over.
func Serve(device *os.File, files fuse.RawFileSystem, o Options) (*Connection, error) {
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
	c := &Connection{device: os.NewFile(uintptr(fd), "/dev/fuse"), log: o.Log, ended: o.Ended, done: make(chan struct{})}
	if c.conn, err = c.device.SyscallConn(); err != nil {
		c.device.Close()
		return nil, err
	}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	context.AfterFunc(c.ctx, o.Ending)
	c.protocol = fuse.NewProtocolServer(files, &fuse.MountOptions{
		MaxWrite:                 maxWrite,
		MaxBackground:            maxBackground,
		DisableXAttrs:            true,
		ExplicitDataCacheControl: true, // only this mount changes its files
		EnableSymlinkCaching:     true,
		DisabledCapabilities:     fuse.CAP_PASSTHROUGH,
		Logger:                   log.New(io.Discard, "", 0),
		PanicHandler: func(v any) fuse.Status {
			c.log.Error("serve a request of a mount: it is answered with EIO", "panic", fmt.Sprint(v))
			return fuse.EIO
		},
	})
	go c.loop()
	return c, nil
}

// Wait returns when the mount is gone or the connection is closed, and no request runs any more.
func (c *Connection) Wait() { <-c.done }

// Close ends the connection. All requests end; each later one fails with ENOTCONN as soon as no process has another
// descriptor of the mount.
func (c *Connection) Close() error {
	c.cancel()
	err := c.device.Close()
	<-c.done
	if errors.Is(err, os.ErrClosed) {
		return nil
	}
	return err
}

func (c *Connection) loop() {
	for {
		request, whole, err := c.next()
		if err != nil {
			if !errors.Is(err, unix.ENODEV) && c.ctx.Err() == nil {
				c.log.Error("read requests of a mount: it is not served any more", "error", err)
			}
			break
		}
		c.running.Go(func() {
			c.handle(request)
			if whole != nil {
				buffers.Put(whole)
			}
		})
	}
	c.cancel()
	c.device.Close()
	c.running.Wait()
	c.ended()
	close(c.done)
}

// next returns the next request. A long one is in a buffer that the caller puts back.
func (c *Connection) next() (request []byte, whole *[maxWrite + smallAnswer]byte, err error) {
	waited := c.conn.Read(func(fd uintptr) bool {
		whole = buffers.Get().(*[maxWrite + smallAnswer]byte)
		var n int
		for {
			// ENOENT means that the request was interrupted before it was read.
			if n, err = unix.Read(int(fd), whole[:requestSize]); err != unix.EINTR && err != unix.ENOENT {
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
		buffers.Put(whole)
		whole = nil
		return err != unix.EAGAIN
	})
	if c.ctx.Err() != nil {
		return nil, nil, c.ctx.Err()
	}
	if waited != nil { // Go's poller takes the end of a mount for an error of the descriptor
		if controlled := c.conn.Control(func(fd uintptr) { _, err = unix.Read(int(fd), make([]byte, requestSize)) }); controlled != nil {
			err = controlled
		}
		if err == nil {
			err = waited
		}
	}
	if err == nil && len(request) < int(unsafe.Sizeof(fuse.InHeader{})) {
		err = fmt.Errorf("a request of %d bytes", len(request))
	}
	return request, whole, err
}

func (c *Connection) handle(request []byte) {
	header := (*fuse.InHeader)(unsafe.Pointer(unsafe.SliceData(request)))
	unique := header.Unique
	var answer []byte
	switch header.Opcode {
	case opRead, opReaddir, opReaddirP:
		whole := buffers.Get().(*[maxWrite + smallAnswer]byte)
		defer buffers.Put(whole)
		answer = whole[:]
	default:
		answer = make([]byte, smallAnswer)
	}
	n, status := c.protocol.HandleRequest([][]byte{request}, [][]byte{answer})
	switch {
	case !status.Ok():
		c.reply(failure(unique, status))
	case n > 0:
		c.reply(answer[:n])
	}
}

// reply sends an answer. Nobody waits any more for one that the kernel does not take.
func (c *Connection) reply(answer []byte) {
	_ = c.conn.Control(func(fd uintptr) {
		for {
			if _, err := unix.Write(int(fd), answer); err != unix.EINTR {
				return
			}
		}
	})
}

// failure is the answer that a request has failed.
func failure(unique uint64, status fuse.Status) []byte {
	p := make([]byte, unsafe.Sizeof(fuse.OutHeader{}))
	binary.NativeEndian.PutUint32(p, uint32(len(p)))
	binary.NativeEndian.PutUint32(p[4:], uint32(-int32(status)))
	binary.NativeEndian.PutUint64(p[8:], unique)
	return p
}

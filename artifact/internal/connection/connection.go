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
	// MaxWrite is the most that one request reads or writes, in bytes.
	MaxWrite = 128 << 10
	// requestSize is room for a request: the kernel refuses a shorter buffer.
	requestSize = MaxWrite + 4096
	// smallAnswer is room for any answer without data: a target of a link has at most 4096 bytes.
	smallAnswer = 8192
	// maxBackground bounds the reads that the kernel sends ahead of its readers at the same time.
	maxBackground = 32
)

// Numbers of requests (linux/fuse.h) whose answers have data, or that are not the protocol's.
const (
	opRead      = 15
	opReaddir   = 28
	opInterrupt = 36
	opReaddirP  = 44
)

// buffers are those of long requests, and of long answers.
var buffers = sync.Pool{New: func() any { return new([MaxWrite + smallAnswer]byte) }}

// Connection serves one mount.
type Connection struct {
	device   *os.File
	conn     syscall.RawConn
	protocol *fuse.ProtocolServer
	log      *slog.Logger
	ended    func()
	read     Read

	ctx     context.Context // ends with the mount
	cancel  context.CancelFunc
	running sync.WaitGroup // requests
	done    chan struct{}

	mu    sync.Mutex
	reads map[uint64]context.CancelFunc // that Read answers, by number of the request
}

// Read answers a read with parts of memory that are in use until release is called. The end of ctx is that of the mount
// or of the reader's wait.
type Read func(ctx context.Context, in *fuse.ReadIn) (parts [][]byte, release func(), status fuse.Status)

// Options are those of a connection.
type Options struct {
	Log *slog.Logger
	// Read, if it is not nil, answers reads in the place of the file system, without a copy.
	Read Read
	// Capabilities are asked for in addition to go-fuse's.
	Capabilities uint64
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
	c := &Connection{device: os.NewFile(uintptr(fd), "/dev/fuse"), log: o.Log, ended: o.Ended, read: o.Read, done: make(chan struct{}), reads: map[uint64]context.CancelFunc{}}
	if c.conn, err = c.device.SyscallConn(); err != nil {
		c.device.Close()
		return nil, err
	}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	context.AfterFunc(c.ctx, o.Ending)
	c.protocol = fuse.NewProtocolServer(files, &fuse.MountOptions{
		MaxWrite:                 MaxWrite,
		MaxBackground:            maxBackground,
		DisableXAttrs:            true,
		ExplicitDataCacheControl: true, // only this mount changes its files
		EnableSymlinkCaching:     true,
		ExtraCapabilities:        o.Capabilities,
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

// Done is closed when the mount is gone, or the connection is closed, and no request runs any more.
func (c *Connection) Done() <-chan struct{} { return c.done }

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
func (c *Connection) next() (request []byte, whole *[MaxWrite + smallAnswer]byte, err error) {
	waited := c.conn.Read(func(fd uintptr) bool {
		whole = buffers.Get().(*[MaxWrite + smallAnswer]byte)
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
	switch {
	case header.Opcode == opRead && c.read != nil && len(request) >= int(unsafe.Sizeof(fuse.ReadIn{})):
		c.answer((*fuse.ReadIn)(unsafe.Pointer(header)))
		return
	case header.Opcode == opInterrupt && len(request) >= int(unsafe.Sizeof(fuse.InterruptIn{})):
		if c.interrupt((*fuse.InterruptIn)(unsafe.Pointer(header)).Unique) {
			return
		}
	}
	unique := header.Unique
	var answer []byte
	switch header.Opcode {
	case opRead, opReaddir, opReaddirP:
		whole := buffers.Get().(*[MaxWrite + smallAnswer]byte)
		defer buffers.Put(whole)
		answer = whole[:]
	default:
		answer = make([]byte, smallAnswer)
	}
	n, status := c.protocol.HandleRequest([][]byte{request}, [][]byte{answer})
	switch {
	case !status.Ok():
		c.reply(head(unique, status, 0))
	case n > 0:
		c.reply(answer[:n])
	}
}

// answer has Read answer a read.
func (c *Connection) answer(in *fuse.ReadIn) {
	ctx, cancel := context.WithCancel(c.ctx)
	defer cancel()
	c.mu.Lock()
	c.reads[in.Unique] = cancel
	c.mu.Unlock()
	defer func() {
		c.mu.Lock()
		delete(c.reads, in.Unique)
		c.mu.Unlock()
	}()
	parts, release, status := c.read(ctx, in)
	if !status.Ok() {
		c.reply(head(in.Unique, status, 0))
		return
	}
	defer release()
	size := 0
	for _, part := range parts {
		size += len(part)
	}
	c.reply(append([][]byte{head(in.Unique, fuse.OK, size)}, parts...)...)
}

// interrupt ends a read, and reports whether Read has that to answer.
func (c *Connection) interrupt(unique uint64) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	cancel, ok := c.reads[unique]
	if ok {
		cancel()
	}
	return ok
}

// reply sends an answer. Nobody waits any more for one that the kernel does not take.
func (c *Connection) reply(parts ...[]byte) {
	_ = c.conn.Control(func(fd uintptr) {
		for {
			if _, err := unix.Writev(int(fd), parts); err != unix.EINTR {
				return
			}
		}
	})
}

// head is the head of an answer that has size further bytes.
func head(unique uint64, status fuse.Status, size int) []byte {
	p := make([]byte, unsafe.Sizeof(fuse.OutHeader{}))
	binary.NativeEndian.PutUint32(p, uint32(len(p)+size))
	binary.NativeEndian.PutUint32(p[4:], uint32(-int32(status)))
	binary.NativeEndian.PutUint64(p[8:], unique)
	return p
}

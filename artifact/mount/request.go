package mount

import (
	"context"
	"encoding/binary"
	"errors"
	"unsafe"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// Numbers of requests (linux/fuse.h) that the server answers itself or has to know.
const (
	opRead      = 15
	opInterrupt = 36
	opReaddir   = 28
	opReaddirP  = 44
)

const (
	headerSize = int(unsafe.Sizeof(fuse.InHeader{}))
	answerSize = int(unsafe.Sizeof(fuse.OutHeader{}))
	// smallAnswer is room for any answer that is no list: a target of a link has at most 4096 bytes.
	smallAnswer = 8192
)

func (s *Server) handle(request []byte) {
	header := (*fuse.InHeader)(unsafe.Pointer(unsafe.SliceData(request)))
	switch {
	case header.Opcode == opRead && len(request) >= int(unsafe.Sizeof(fuse.ReadIn{})):
		s.read((*fuse.ReadIn)(unsafe.Pointer(header)))
		return
	case header.Opcode == opInterrupt && len(request) >= int(unsafe.Sizeof(fuse.InterruptIn{})):
		if s.interrupt((*fuse.InterruptIn)(unsafe.Pointer(header)).Unique) {
			return
		}
	}
	room := smallAnswer
	if header.Opcode == opReaddir || header.Opcode == opReaddirP {
		room += maxWrite
	}
	answer := make([]byte, room)
	unique := header.Unique
	n, status := s.protocol.HandleRequest([][]byte{request}, [][]byte{answer})
	switch {
	case !status.Ok():
		s.reply(head(unique, status, 0))
	case n > 0:
		s.reply(answer[:n])
	}
}

// read answers a read from the cache's memory, without a copy.
func (s *Server) read(in *fuse.ReadIn) {
	ctx, cancel := context.WithCancel(s.ctx)
	defer cancel()
	s.mu.Lock()
	s.reads[in.Unique] = cancel
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		delete(s.reads, in.Unique)
		s.mu.Unlock()
	}()
	parts, release, err := s.files.read(ctx, in)
	if err != nil {
		s.reply(head(in.Unique, s.files.status(in.NodeId, err), 0))
		return
	}
	defer release()
	size := 0
	for _, part := range parts {
		size += len(part)
	}
	s.reply(append([][]byte{head(in.Unique, fuse.OK, size)}, parts...)...)
}

// interrupt ends a read, and reports whether there is one.
func (s *Server) interrupt(unique uint64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	cancel, ok := s.reads[unique]
	if ok {
		cancel()
	}
	return ok
}

// head is the head of an answer that has size further bytes.
func head(unique uint64, status fuse.Status, size int) []byte {
	p := make([]byte, answerSize)
	binary.NativeEndian.PutUint32(p, uint32(answerSize+size))
	binary.NativeEndian.PutUint32(p[4:], uint32(-int32(status)))
	binary.NativeEndian.PutUint64(p[8:], unique)
	return p
}

// errno returns the error number of an error.
func errno(err error) fuse.Status {
	var number unix.Errno
	switch {
	case err == nil:
		return fuse.OK
	case errors.Is(err, context.Canceled):
		return fuse.EINTR
	case errors.As(err, &number):
		return fuse.Status(number)
	}
	return fuse.EIO
}

package unpack

import (
	"context"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// handle is an open file.
type handle struct {
	a        *Artifact
	of       *handles
	fd       int
	ino      uint64
	writes   bool
	arriving *arriving // nil if it had arrived when it was opened
}

var (
	_ fs.FileReader    = (*handle)(nil)
	_ fs.FileWriter    = (*handle)(nil)
	_ fs.FileReleaser  = (*handle)(nil)
	_ fs.FileFsyncer   = (*handle)(nil)
	_ fs.FileAllocater = (*handle)(nil)
	_ fs.FileLseeker   = (*handle)(nil)
)

// Read waits until these bytes have arrived.
func (h *handle) Read(ctx context.Context, p []byte, off int64) (fuse.ReadResult, syscall.Errno) {
	var err error
	if h.arriving != nil {
		err = h.a.waitBytes(ctx, h.arriving, off+int64(len(p)))
	} else {
		err = h.a.check()
	}
	if err != nil {
		return nil, errno(err)
	}
	n := 0
	for n < len(p) {
		m, err := unix.Pread(h.fd, p[n:], off+int64(n))
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return nil, errno(err)
		}
		if m == 0 {
			break
		}
		n += m
	}
	return fuse.ReadResultData(p[:n]), 0
}

// Write writes to a file that has arrived.
func (h *handle) Write(_ context.Context, p []byte, off int64) (uint32, syscall.Errno) {
	if err := h.a.check(); err != nil {
		return 0, errno(err)
	}
	n := 0
	for n < len(p) {
		m, err := unix.Pwrite(h.fd, p[n:], off+int64(n))
		if err == unix.EINTR {
			continue
		}
		if err != nil && n == 0 {
			return 0, errno(err)
		}
		if err != nil {
			break
		}
		n += m
	}
	return uint32(n), 0
}

// Release closes the file.
func (h *handle) Release(context.Context) syscall.Errno {
	h.of.remove(h)
	return 0
}

// Fsync writes the file to its volume.
func (h *handle) Fsync(_ context.Context, flags uint32) syscall.Errno {
	const dataOnly = 1
	if flags&dataOnly != 0 {
		return errno(unix.Fdatasync(h.fd))
	}
	return errno(unix.Fsync(h.fd))
}

// Allocate gets space for the file.
func (h *handle) Allocate(_ context.Context, off, size uint64, mode uint32) syscall.Errno {
	return errno(unix.Fallocate(h.fd, mode, int64(off), int64(size)))
}

// Lseek finds data and holes.
func (h *handle) Lseek(ctx context.Context, off uint64, whence uint32) (uint64, syscall.Errno) {
	err := h.a.check()
	if h.arriving != nil {
		err = h.a.waitBytes(ctx, h.arriving, h.arriving.size)
	}
	if err != nil {
		return 0, errno(err)
	}
	at, err := unix.Seek(h.fd, int64(off), int(whence))
	return uint64(at), errno(err)
}

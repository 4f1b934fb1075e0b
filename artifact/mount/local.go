package mount

import (
	"context"
	"errors"
	"io"
	"os"
	"sync"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// copying is a copy of an object that is on its way.
type copying struct {
	reserved int64 // bytes of the room
	done     chan struct{}
	err      error
}

// answers are buffers for reads of local files.
var answers = sync.Pool{New: func() any { return new([maxWrite]byte) }}

// readLocal reads a local file.
func readLocal(f *os.File, in *fuse.ReadIn) (parts [][]byte, release func(), err error) {
	whole := answers.Get().(*[maxWrite]byte)
	n, err := f.ReadAt(whole[:min(in.Size, maxWrite)], int64(in.Offset))
	if err != nil && !errors.Is(err, io.EOF) {
		answers.Put(whole)
		return nil, nil, err
	}
	return [][]byte{whole[:n]}, func() { answers.Put(whole) }, nil
}

// writable gives a node a local file. It has the object's content if keep is set, and is empty otherwise. The caller
// holds the lock, which is free while an object is copied.
func (all *files) writable(cancel <-chan struct{}, n *node, keep bool) fuse.Status {
	if all.isFixed() {
		return fuse.EROFS
	}
	for n.local == nil {
		if !keep || !n.lazy {
			f, err := all.room.Unnamed(all.spool)
			if err != nil {
				return all.local("make a local file", err)
			}
			n.local, n.lazy = f, false
			break
		}
		if n.copying == nil {
			reserved := n.object.Info().Size
			if !all.room.Reserve(reserved) {
				return all.full()
			}
			n.copying = &copying{reserved: reserved, done: make(chan struct{})}
			all.copies.Add(1)
			go all.copy(n)
		}
		c := n.copying
		all.mu.Unlock()
		var status fuse.Status
		select {
		case <-c.done:
			status = all.status(n.id, c.err)
		case <-cancel:
			status = fuse.EINTR
		}
		all.mu.Lock()
		if !status.Ok() {
			return status
		}
	}
	if !keep {
		if err := n.local.Truncate(0); err != nil {
			return all.local("truncate a local file", err)
		}
		n.size = 0
		n.writes.reset()
		all.measure(n)
		n.touch()
	}
	return fuse.OK
}

// full returns the status of a write for which there is no room, and logs the first.
func (all *files) full() fuse.Status {
	if !all.hasLoggedFull {
		all.hasLoggedFull = true
		all.log.Error("write to an artifact: writes fail with ENOSPC, because what is written and not stored yet, with inputs that are opened for writing, takes all the room that a container may have", "bytes", all.room.Limit())
	}
	return fuse.Status(unix.ENOSPC)
}

// local returns the status of an error of the spool, and logs the first with its number: the guest can cause any number.
func (all *files) local(what string, err error) fuse.Status {
	status := errno(err)
	if !all.loggedLocal[status] {
		all.loggedLocal[status] = true
		all.log.Error(what+": writes fail", "folder", all.spool.Name(), "error", err)
	}
	return status
}

// copy copies an object into a local file. It goes on when those who wait for it are interrupted.
func (all *files) copy(n *node) {
	defer all.copies.Done()
	f, err := all.room.Unnamed(all.spool)
	if err == nil {
		err = all.copyInto(all.ctx, f, n)
	}
	all.mu.Lock()
	defer all.mu.Unlock()
	c := n.copying
	n.copying, c.err = nil, err
	switch {
	case err == nil && n.lazy && n.local == nil:
		n.local, n.lazy, n.taken = f, false, c.reserved
		all.measure(n)
		n.object.Rest()
	default: // it has failed, or the file was truncated meanwhile
		if f != nil {
			all.room.Drop(f)
		}
		all.room.Release(c.reserved)
	}
	close(c.done)
	all.release(n)
}

func (all *files) copyInto(ctx context.Context, f *os.File, n *node) error {
	p := make([]byte, 1<<20)
	for off, size := int64(0), n.object.Info().Size; off < size; {
		m, err := n.object.ReadAt(ctx, p[:min(int64(len(p)), size-off)], off)
		if err != nil {
			return err
		}
		if _, err := f.WriteAt(p[:m], off); err != nil {
			return err
		}
		off += int64(m)
	}
	return nil
}

// close gives up the object.
func (n *node) close() {
	if n.object != nil {
		n.object.Close()
	}
}

// resize changes the size of a file.
func (all *files) resize(cancel <-chan struct{}, n *node, size uint64) fuse.Status {
	switch {
	case n.isFolder():
		return fuse.Status(unix.EISDIR)
	case size > all.maxSize:
		return fuse.Status(unix.EFBIG)
	}
	if status := all.writable(cancel, n, size > 0); !status.Ok() {
		return status
	}
	if err := n.local.Truncate(int64(size)); err != nil {
		return all.local("truncate a local file", err)
	}
	if size < n.size {
		n.writes.reset()
	}
	n.size = size
	all.measure(n)
	n.touch()
	return fuse.OK
}

func (all *files) Write(_ <-chan struct{}, in *fuse.WriteIn, data []byte) (uint32, fuse.Status) {
	all.mu.Lock()
	h := all.handles[in.Fh]
	if h == nil || h.node.local == nil {
		all.mu.Unlock()
		return 0, fuse.EBADF
	}
	if all.frozen {
		all.mu.Unlock()
		return 0, fuse.EROFS
	}
	if in.Offset+uint64(len(data)) > all.maxSize || in.Offset > all.maxSize {
		all.mu.Unlock()
		return 0, fuse.Status(unix.EFBIG)
	}
	reserved := int64(len(data))
	if !all.room.Reserve(reserved) {
		defer all.mu.Unlock()
		return 0, all.full()
	}
	defer all.room.Release(reserved) // what it takes is measured before
	f := h.node.local
	all.writing.Add(1)
	defer all.writing.Done()
	all.mu.Unlock()
	// The kernel serializes writes and truncations of a file.
	m, err := f.WriteAt(data, int64(in.Offset))
	all.mu.Lock()
	defer all.mu.Unlock()
	if m > 0 {
		n, end := h.node, int64(in.Offset)+int64(m)
		n.writes.note(int64(in.Offset), end)
		if all.grown != nil && end/PartSize > int64(n.size)/PartSize {
			all.grown()
		}
		n.size = max(n.size, uint64(end))
		all.measure(n)
		n.touch()
		return uint32(m), fuse.OK
	}
	if err != nil {
		return 0, all.local("write into a local file", err)
	}
	return 0, fuse.OK
}

func (all *files) Fallocate(_ <-chan struct{}, in *fuse.FallocateIn) fuse.Status {
	all.mu.Lock()
	defer all.mu.Unlock()
	h := all.handles[in.Fh]
	if h == nil || h.node.local == nil {
		return fuse.EBADF
	}
	switch {
	case all.frozen:
		return fuse.EROFS
	case in.Offset > all.maxSize || in.Length > all.maxSize-in.Offset:
		return fuse.Status(unix.EFBIG)
	case !all.room.Reserve(int64(in.Length)):
		return all.full()
	}
	defer all.room.Release(int64(in.Length)) // what it takes is measured before
	if err := unix.Fallocate(int(h.node.local.Fd()), in.Mode, int64(in.Offset), int64(in.Length)); err != nil {
		return errno(err)
	}
	info, err := h.node.local.Stat()
	if err != nil {
		return errno(err)
	}
	h.node.size = uint64(info.Size())
	h.node.writes.reset()
	all.measure(h.node)
	h.node.touch()
	return fuse.OK
}

// Fsync does nothing: the copy does not outlive the server.
func (all *files) Fsync(<-chan struct{}, *fuse.FsyncIn) fuse.Status { return fuse.OK }

// FsyncDir does nothing.
func (all *files) FsyncDir(<-chan struct{}, *fuse.FsyncIn) fuse.Status { return fuse.OK }

package mount

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"os"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/wasmshim/containerd-shim-wasm/artifact/object"
)

// valid is how long the kernel may keep what it knows: only this mount changes its files.
const valid = 365 * 24 * time.Hour

// files are the files of a mount.
type files struct {
	fuse.RawFileSystem // answers the rest with ENOSYS
	log                *slog.Logger
	start              time.Time
	spool              *os.Root // nil for a mount that cannot be changed
	room               *Room    // of the spool
	grown              func()   // is called when a file has another part, unless nil
	frozen             bool     // the mount can no longer be changed
	hasLoggedFull      bool
	keep               bool // the content when the mount has ended
	maxSize            uint64
	loggedLocal        map[fuse.Status]bool // errors of the spool
	ctx                context.Context
	copies             sync.WaitGroup
	writing            sync.WaitGroup // writes, which go on without the lock
	siblings           siblings

	mu      sync.Mutex // of siblings, too
	root    *node
	nodes   map[uint64]*node
	last    uint64 // id
	handles map[uint64]*handle
	opened  uint64 // the last handle
}

// handle is an open file or folder.
type handle struct {
	node    *node
	entries []entry // of a folder, as it was when it was opened
}

type entry struct {
	name string
	node *node
}

func newFiles(spool *os.Root, room *Room, log *slog.Logger) *files {
	if room == nil {
		room = Boundless()
	}
	return &files{
		RawFileSystem: fuse.NewDefaultRawFileSystem(), log: log, start: time.Now(), spool: spool, room: room, ctx: context.Background(),
		nodes: map[uint64]*node{}, handles: map[uint64]*handle{}, loggedLocal: map[fuse.Status]bool{}, maxSize: 1 << 62,
	}
}

// add gives a node an id. The first is the root's.
func (all *files) add(n *node) {
	all.last++
	n.id = all.last
	all.nodes[n.id] = n
}

// ended is for the end of the mount.
func (all *files) ended() {
	if !all.keep {
		all.close()
	}
}

// close closes what is open.
func (all *files) close() {
	all.copies.Wait()
	all.mu.Lock()
	defer all.mu.Unlock()
	for _, n := range all.nodes {
		all.discard(n)
	}
}

// read returns a part of a file.
func (all *files) read(ctx context.Context, in *fuse.ReadIn) (parts [][]byte, release func(), err error) {
	all.mu.Lock()
	h := all.handles[in.Fh]
	if h == nil || h.node.isFolder() {
		all.mu.Unlock()
		return nil, nil, unix.EBADF
	}
	local, lazy, from := h.node.local, h.node.lazy, h.node.object
	all.mu.Unlock()
	switch {
	case local != nil:
		return readLocal(local, in)
	case !lazy:
		return nil, func() {}, nil
	}
	v, err := from.View(ctx, int64(in.Offset), int(min(in.Size, maxWrite)))
	if err != nil {
		return nil, nil, err
	}
	return v.Parts, v.Release, nil
}

// status returns the status of an error of a read, and logs it if that is the first with its code.
func (all *files) status(id uint64, err error) fuse.Status {
	var failed *object.Error
	if errors.As(err, &failed) && !errors.Is(err, object.ErrClosed) {
		all.mu.Lock()
		defer all.mu.Unlock()
		code := failed.Code()
		if n := all.nodes[id]; n != nil && !n.hasLogged(code) {
			all.log.Error("read an object: reads of the file fail with EIO", "bucket", failed.Bucket, "key", failed.Key, "code", code, "error", failed.Err)
		}
		return fuse.EIO
	}
	return errno(err)
}

// hasLogged reports whether a code was logged, and notes it.
func (n *node) hasLogged(code string) bool {
	if _, ok := n.logged[code]; ok {
		return true
	}
	if n.logged == nil {
		n.logged = map[string]struct{}{}
	}
	n.logged[code] = struct{}{}
	return false
}

func (all *files) String() string { return "wasm-artifact" }

// entry answers with a node that the kernel then knows.
func (all *files) entry(n *node, out *fuse.EntryOut) {
	n.lookups++
	out.NodeId = n.id
	out.SetEntryTimeout(valid)
	out.SetAttrTimeout(valid)
	n.attributes(&out.Attr)
}

// folder returns a folder by its id.
func (all *files) folderOf(id uint64) (*node, fuse.Status) {
	n := all.nodes[id]
	if n == nil {
		return nil, fuse.Status(unix.ESTALE)
	}
	if !n.isFolder() {
		return nil, fuse.ENOTDIR
	}
	return n, fuse.OK
}

func (all *files) Lookup(_ <-chan struct{}, header *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status {
	all.mu.Lock()
	defer all.mu.Unlock()
	above, status := all.folderOf(header.NodeId)
	if !status.Ok() {
		return status
	}
	if len(name) > unix.NAME_MAX {
		return fuse.Status(unix.ENAMETOOLONG)
	}
	n := above.children[name]
	if n == nil {
		out.SetEntryTimeout(valid) // node 0: the kernel remembers that there is none
		return fuse.OK
	}
	all.entry(n, out)
	return fuse.OK
}

func (all *files) Forget(id, lookups uint64) {
	all.mu.Lock()
	defer all.mu.Unlock()
	if n := all.nodes[id]; n != nil {
		n.lookups -= min(lookups, n.lookups)
		all.release(n)
	}
}

// release forgets a node that has no name and that nobody knows.
func (all *files) release(n *node) {
	if n.links > 0 || n.lookups > 0 || n.opens > 0 || n.copying != nil || n == all.root {
		return
	}
	delete(all.nodes, n.id)
	if n.made {
		all.room.addNodes(-1)
	}
	all.discard(n)
}

// discard closes the content of a node.
func (all *files) discard(n *node) {
	n.close()
	if n.local != nil {
		all.room.Drop(n.local)
		n.local = nil
	}
	all.room.Release(n.taken)
	n.taken = 0
}

func (all *files) GetAttr(_ <-chan struct{}, in *fuse.GetAttrIn, out *fuse.AttrOut) fuse.Status {
	all.mu.Lock()
	defer all.mu.Unlock()
	n := all.nodes[in.NodeId]
	if n == nil {
		return fuse.Status(unix.ESTALE)
	}
	out.SetTimeout(valid)
	n.attributes(&out.Attr)
	return fuse.OK
}

// open makes a handle.
func (all *files) open(n *node) (uint64, *handle) {
	all.opened++
	h := &handle{node: n}
	all.handles[all.opened] = h
	n.opens++
	return all.opened, h
}

// shut ends a handle.
func (all *files) shut(fh uint64) {
	all.mu.Lock()
	defer all.mu.Unlock()
	if h := all.handles[fh]; h != nil {
		delete(all.handles, fh)
		h.node.opens--
		if h.node.opens == 0 && h.node.object != nil {
			h.node.object.Rest()
		}
		all.release(h.node)
	}
}

func (all *files) Open(cancel <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	all.mu.Lock()
	defer all.mu.Unlock()
	n := all.nodes[in.NodeId]
	if n == nil {
		return fuse.Status(unix.ESTALE)
	}
	if in.Flags&unix.O_ACCMODE != unix.O_RDONLY || in.Flags&unix.O_TRUNC != 0 {
		n.opens++ // it stays
		status := all.writable(cancel, n, in.Flags&unix.O_TRUNC == 0)
		if n.opens--; !status.Ok() {
			all.release(n)
			return status
		}
	}
	out.Fh, _ = all.open(n)
	all.siblings.opened(n)
	out.OpenFlags = fuse.FOPEN_KEEP_CACHE | fuse.FOPEN_NOFLUSH
	return fuse.OK
}

func (all *files) Release(_ <-chan struct{}, in *fuse.ReleaseIn) { all.shut(in.Fh) }

func (all *files) OpenDir(_ <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	all.mu.Lock()
	defer all.mu.Unlock()
	n, status := all.folderOf(in.NodeId)
	if !status.Ok() {
		return status
	}
	var h *handle
	out.Fh, h = all.open(n)
	above := n.parent
	if above == nil {
		above = n
	}
	h.entries = append(h.entries, entry{".", n}, entry{"..", above})
	h.entries = append(h.entries, sorted(n)...)
	return fuse.OK
}

// sorted returns what is in a folder.
func sorted(n *node) []entry {
	var all []entry
	for _, name := range slices.Sorted(maps.Keys(n.children)) {
		all = append(all, entry{name, n.children[name]})
	}
	return all
}

// isFixed reports whether the mount cannot be changed.
func (all *files) isFixed() bool { return all.spool == nil || all.frozen }

func (all *files) ReleaseDir(in *fuse.ReleaseIn) { all.shut(in.Fh) }

// list calls add for the entries from an offset on, until it returns false.
func (all *files) list(in *fuse.ReadIn, add func(entry) bool) fuse.Status {
	all.mu.Lock()
	defer all.mu.Unlock()
	h := all.handles[in.Fh]
	if h == nil {
		return fuse.EBADF
	}
	for i := in.Offset; i < uint64(len(h.entries)) && add(h.entries[i]); i++ {
	}
	return fuse.OK
}

func (all *files) ReadDir(_ <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	return all.list(in, func(e entry) bool {
		return out.AddDirEntry(fuse.DirEntry{Name: e.name, Mode: e.node.mode, Ino: e.node.id})
	})
}

func (all *files) ReadDirPlus(_ <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	return all.list(in, func(e entry) bool {
		found := out.AddDirLookupEntry(fuse.DirEntry{Name: e.name, Mode: e.node.mode, Ino: e.node.id})
		if found == nil {
			return false
		}
		// The kernel wants no node for the names of the folder itself and of the one above, nor for what is gone.
		if e.name != "." && e.name != ".." && e.node.links > 0 {
			all.entry(e.node, found)
		}
		return true
	})
}

func (all *files) StatFs(_ <-chan struct{}, _ *fuse.InHeader, out *fuse.StatfsOut) fuse.Status {
	all.mu.Lock()
	defer all.mu.Unlock()
	if all.spool != nil {
		if dir, err := all.spool.Open("."); err == nil {
			defer dir.Close()
			var stat syscall.Statfs_t
			if syscall.Fstatfs(int(dir.Fd()), &stat) == nil {
				out.FromStatfsT(&stat)
				return fuse.OK
			}
		}
	}
	*out = fuse.StatfsOut{Bsize: blockSize, Frsize: 4096, NameLen: unix.NAME_MAX, Files: uint64(len(all.nodes))}
	for _, n := range all.nodes {
		out.Blocks += (n.size + 4095) / 4096
	}
	return fuse.OK
}

package mount

import (
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

func (all *files) SetAttr(cancel <-chan struct{}, in *fuse.SetAttrIn, out *fuse.AttrOut) fuse.Status {
	all.mu.Lock()
	defer all.mu.Unlock()
	n := all.nodes[in.NodeId]
	if n == nil {
		return fuse.Status(unix.ESTALE)
	}
	if all.isFixed() {
		return fuse.EROFS
	}
	n.opens++ // it stays
	defer func() { n.opens--; all.release(n) }()
	if size, ok := in.GetSize(); ok {
		if status := all.resize(cancel, n, size); !status.Ok() {
			return status
		}
	}
	if mode, ok := in.GetMode(); ok {
		n.mode = n.mode&unix.S_IFMT | mode
	}
	if uid, ok := in.GetUID(); ok {
		n.uid = uid
	}
	if gid, ok := in.GetGID(); ok {
		n.gid = gid
	}
	if t, ok := in.GetATime(); ok {
		n.accessed = t
	}
	if t, ok := in.GetMTime(); ok {
		n.modified = t
	}
	n.changed = time.Now()
	out.SetTimeout(valid)
	n.attributes(&out.Attr)
	return fuse.OK
}

// place returns the folder for a new name.
func (all *files) place(id uint64, name string) (*node, fuse.Status) {
	above, status := all.folderOf(id)
	switch {
	case !status.Ok():
		return nil, status
	case all.isFixed():
		return nil, fuse.EROFS
	case above.links == 0:
		return nil, fuse.ENOENT // it was removed
	case len(name) > unix.NAME_MAX:
		return nil, fuse.Status(unix.ENAMETOOLONG)
	case above.children[name] != nil:
		return nil, fuse.Status(unix.EEXIST)
	case !all.room.hasNode():
		return nil, fuse.Status(unix.ENOSPC)
	}
	return above, fuse.OK
}

// create makes a node.
func (all *files) create(header *fuse.InHeader, name string, mode uint32) (*node, fuse.Status) {
	above, status := all.place(header.NodeId, name)
	if !status.Ok() {
		return nil, status
	}
	n := &node{mode: mode, uid: header.Uid, gid: header.Gid, links: 1, made: true}
	if above.mode&unix.S_ISGID != 0 {
		n.gid = above.gid
		if n.isFolder() {
			n.mode |= unix.S_ISGID
		}
	}
	if n.isFolder() {
		n.links, n.children = 2, map[string]*node{}
	}
	n.touch()
	n.accessed = n.modified
	all.add(n)
	all.room.addNodes(1)
	above.attach(name, n)
	above.touch()
	return n, fuse.OK
}

func (all *files) Create(_ <-chan struct{}, in *fuse.CreateIn, name string, out *fuse.CreateOut) fuse.Status {
	all.mu.Lock()
	defer all.mu.Unlock()
	n, status := all.create(&in.InHeader, name, unix.S_IFREG|in.Mode&0o7777)
	if !status.Ok() {
		return status
	}
	if status := all.writable(nil, n, true); !status.Ok() {
		all.nodes[in.NodeId].detach(name)
		n.links = 0
		all.release(n)
		return status
	}
	all.entry(n, &out.EntryOut)
	out.Fh, _ = all.open(n)
	out.OpenFlags = fuse.FOPEN_KEEP_CACHE | fuse.FOPEN_NOFLUSH
	return fuse.OK
}

func (all *files) Mknod(_ <-chan struct{}, in *fuse.MknodIn, name string, out *fuse.EntryOut) fuse.Status {
	switch in.Mode & unix.S_IFMT {
	case unix.S_IFREG, unix.S_IFIFO, unix.S_IFSOCK:
	default:
		return fuse.EPERM
	}
	return all.made(&in.InHeader, name, in.Mode, "", out)
}

func (all *files) Mkdir(_ <-chan struct{}, in *fuse.MkdirIn, name string, out *fuse.EntryOut) fuse.Status {
	return all.made(&in.InHeader, name, unix.S_IFDIR|in.Mode&0o7777, "", out)
}

func (all *files) Symlink(_ <-chan struct{}, header *fuse.InHeader, target, name string, out *fuse.EntryOut) fuse.Status {
	return all.made(header, name, unix.S_IFLNK|0o777, target, out)
}

// made makes a node and answers with it.
func (all *files) made(header *fuse.InHeader, name string, mode uint32, target string, out *fuse.EntryOut) fuse.Status {
	all.mu.Lock()
	defer all.mu.Unlock()
	n, status := all.create(header, name, mode)
	if !status.Ok() {
		return status
	}
	if target != "" {
		n.target, n.size = target, uint64(len(target))
	}
	all.entry(n, out)
	return fuse.OK
}

func (all *files) Readlink(_ <-chan struct{}, header *fuse.InHeader) ([]byte, fuse.Status) {
	all.mu.Lock()
	defer all.mu.Unlock()
	n := all.nodes[header.NodeId]
	if n == nil || n.mode&unix.S_IFMT != unix.S_IFLNK {
		return nil, fuse.EINVAL
	}
	return []byte(n.target), fuse.OK
}

func (all *files) Link(_ <-chan struct{}, in *fuse.LinkIn, name string, out *fuse.EntryOut) fuse.Status {
	all.mu.Lock()
	defer all.mu.Unlock()
	above, status := all.place(in.NodeId, name)
	if !status.Ok() {
		return status
	}
	n := all.nodes[in.Oldnodeid]
	if n == nil || n.links == 0 {
		return fuse.ENOENT
	}
	if n.isFolder() {
		return fuse.EPERM
	}
	n.links++
	all.room.addNodes(1) // a further name takes as much
	n.changed = time.Now()
	above.attach(name, n)
	above.touch()
	all.entry(n, out)
	return fuse.OK
}

func (all *files) Unlink(_ <-chan struct{}, header *fuse.InHeader, name string) fuse.Status {
	return all.remove(header, name, false)
}

func (all *files) Rmdir(_ <-chan struct{}, header *fuse.InHeader, name string) fuse.Status {
	return all.remove(header, name, true)
}

func (all *files) remove(header *fuse.InHeader, name string, folder bool) fuse.Status {
	all.mu.Lock()
	defer all.mu.Unlock()
	above, status := all.folderOf(header.NodeId)
	if !status.Ok() {
		return status
	}
	if all.isFixed() {
		return fuse.EROFS
	}
	n := above.children[name]
	switch {
	case n == nil:
		return fuse.ENOENT
	case folder && !n.isFolder():
		return fuse.ENOTDIR
	case !folder && n.isFolder():
		return fuse.Status(unix.EISDIR)
	case len(n.children) > 0:
		return fuse.Status(unix.ENOTEMPTY)
	}
	above.detach(name)
	above.touch()
	all.unnamed(n)
	return fuse.OK
}

// unnamed notes that a node has a name less.
func (all *files) unnamed(n *node) {
	n.changed = time.Now()
	if n.isFolder() {
		n.links = 0
	} else if n.links--; n.links > 0 {
		all.room.addNodes(-1)
	}
	all.release(n)
}

func (all *files) Rename(_ <-chan struct{}, in *fuse.RenameIn, name, newName string) fuse.Status {
	all.mu.Lock()
	defer all.mu.Unlock()
	from, status := all.folderOf(in.NodeId)
	if !status.Ok() {
		return status
	}
	to, status := all.folderOf(in.Newdir)
	if !status.Ok() {
		return status
	}
	n, there := from.children[name], to.children[newName]
	switch {
	case all.isFixed():
		return fuse.EROFS
	case n == nil || to.links == 0:
		return fuse.ENOENT
	case len(newName) > unix.NAME_MAX:
		return fuse.Status(unix.ENAMETOOLONG)
	case in.Flags&^(unix.RENAME_NOREPLACE|unix.RENAME_EXCHANGE) != 0:
		return fuse.EINVAL
	case in.Flags&unix.RENAME_EXCHANGE != 0:
		if there == nil {
			return fuse.ENOENT
		}
		from.detach(name)
		to.detach(newName)
		from.attach(name, there)
		to.attach(newName, n)
		there.changed = time.Now()
	case there == n: // two names of one file
		return fuse.OK
	case there != nil && in.Flags&unix.RENAME_NOREPLACE != 0:
		return fuse.Status(unix.EEXIST)
	case there != nil && there.isFolder() && !n.isFolder():
		return fuse.Status(unix.EISDIR)
	case there != nil && !there.isFolder() && n.isFolder():
		return fuse.ENOTDIR
	case there != nil && len(there.children) > 0:
		return fuse.Status(unix.ENOTEMPTY)
	default:
		from.detach(name)
		if there != nil {
			to.detach(newName)
			all.unnamed(there)
		}
		to.attach(newName, n)
	}
	from.touch()
	to.touch()
	n.changed = time.Now()
	if all.grown != nil && n.size >= PartSize {
		all.grown()
	}
	return fuse.OK
}

package unpack

import (
	"context"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// node is a file, a folder or a link. It has no state: its path follows renames, and is resolved for each request.
type node struct {
	fs.Inode
	a       *Artifact
	handles *handles
}

var (
	_ fs.NodeLookuper   = (*node)(nil)
	_ fs.NodeGetattrer  = (*node)(nil)
	_ fs.NodeSetattrer  = (*node)(nil)
	_ fs.NodeOpener     = (*node)(nil)
	_ fs.NodeReaddirer  = (*node)(nil)
	_ fs.NodeReadlinker = (*node)(nil)
	_ fs.NodeStatfser   = (*node)(nil)
)

// open opens the node.
func (n *node) open(flags int) (int, error) {
	if n.IsRoot() {
		return n.a.openBeneath("", flags)
	}
	return n.a.openBeneath(n.Path(n.Root()), flags)
}

// attributes describes the node.
func (n *node) attributes() (*unix.Statx_t, error) {
	fd, err := n.open(unix.O_PATH)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	return n.a.describe(fd, "")
}

// inFolder calls a function with a descriptor of the node, which is a folder, for each name that is one.
func (n *node) inFolder(do func(dir int) error, names ...string) syscall.Errno {
	for _, name := range names {
		if !isName(name) {
			return unix.EINVAL
		}
	}
	dir, err := n.open(unix.O_PATH | unix.O_DIRECTORY)
	if err != nil {
		return errno(err)
	}
	defer unix.Close(dir)
	return errno(do(dir))
}

// child makes the node of a file.
func (n *node) child(ctx context.Context, x *unix.Statx_t, out *fuse.EntryOut) *fs.Inode {
	copyAttributes(&out.Attr, x)
	if isFolder(x) {
		out.SetAttrTimeout(n.a.folderValid())
	}
	id := fs.StableAttr{Mode: uint32(x.Mode) & unix.S_IFMT, Ino: x.Ino, Gen: generation(x)}
	return n.NewInode(ctx, &node{a: n.a, handles: n.handles}, id)
}

// named makes the node of what has a name in a folder.
func (n *node) named(ctx context.Context, dir int, name string, out *fuse.EntryOut) (*fs.Inode, error) {
	x, err := n.a.describe(dir, name)
	if err != nil {
		return nil, err
	}
	return n.child(ctx, x, out), nil
}

// folderValid is how long the kernel may keep the attributes of a folder, in which files arrive.
func (a *Artifact) folderValid() time.Duration {
	select {
	case <-a.finished:
		return valid
	default:
		return time.Nanosecond
	}
}

// Lookup waits until the name has arrived or nothing arrives any more.
func (n *node) Lookup(ctx context.Context, name string, out *fuse.EntryOut) (found *fs.Inode, _ syscall.Errno) {
	number := n.inFolder(func(dir int) error {
		if len(name) > unix.NAME_MAX {
			return unix.ENAMETOOLONG
		}
		err := n.a.wait(ctx, func() bool {
			_, err := n.a.describe(dir, name)
			return err != unix.ENOENT
		})
		if err != nil {
			return err
		}
		found, err = n.named(ctx, dir, name, out)
		return err
	}, name)
	return found, number
}

// Getattr returns the attributes that the file has when it has arrived.
func (n *node) Getattr(_ context.Context, f fs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	if err := n.a.check(); err != nil {
		return errno(err)
	}
	var x *unix.Statx_t
	var err error
	if h, ok := f.(*handle); ok {
		x, err = n.a.describe(h.fd, "")
	} else {
		x, err = n.attributes()
	}
	if err != nil {
		return errno(err)
	}
	copyAttributes(&out.Attr, x)
	if isFolder(x) {
		out.SetTimeout(n.a.folderValid())
	}
	return 0
}

// Setattr changes attributes of a file that has arrived.
func (n *node) Setattr(ctx context.Context, f fs.FileHandle, in *fuse.SetAttrIn, out *fuse.AttrOut) syscall.Errno {
	if err := n.a.waitWhole(ctx, n.StableAttr().Ino); err != nil {
		return errno(err)
	}
	fd, err := n.open(unix.O_PATH)
	if err == unix.ENOENT {
		fd, err = n.handles.duplicate(n.StableAttr().Ino)
	}
	if err != nil {
		return errno(err)
	}
	defer unix.Close(fd)
	if err := n.change(fd, f, in); err != nil {
		return errno(err)
	}
	x, err := n.a.describe(fd, "")
	if err != nil {
		return errno(err)
	}
	copyAttributes(&out.Attr, x)
	if isFolder(x) {
		out.SetTimeout(n.a.folderValid())
	} else {
		out.SetTimeout(valid)
	}
	return 0
}

func (n *node) change(fd int, f fs.FileHandle, in *fuse.SetAttrIn) error {
	uid, hasUID := in.GetUID()
	gid, hasGID := in.GetGID()
	if hasUID || hasGID {
		owner := func(id uint32, has bool) int {
			if !has {
				return -1
			}
			return int(id)
		}
		if err := unix.Fchownat(fd, "", owner(uid, hasUID), owner(gid, hasGID), unix.AT_EMPTY_PATH|unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return err
		}
	}
	if mode, ok := in.GetMode(); ok {
		if err := n.withFile(f, unix.O_RDONLY, func(fd int) error { return unix.Fchmod(fd, mode&0o7777) }); err != nil {
			return err
		}
	}
	if size, ok := in.GetSize(); ok {
		if err := n.withFile(f, unix.O_WRONLY, func(fd int) error { return unix.Ftruncate(fd, int64(size)) }); err != nil {
			return err
		}
	}
	accessed, hasAccessed := in.GetATime()
	modified, hasModified := in.GetMTime()
	if !hasAccessed && !hasModified {
		return nil
	}
	times := []unix.Timespec{{Nsec: unix.UTIME_OMIT}, {Nsec: unix.UTIME_OMIT}}
	if hasAccessed {
		times[0] = timespec(accessed)
	}
	if hasModified {
		times[1] = timespec(modified)
	}
	return unix.UtimesNanoAt(fd, "", times, unix.AT_EMPTY_PATH|unix.AT_SYMLINK_NOFOLLOW)
}

// withFile calls a function with a descriptor of the open file, or of the node.
func (n *node) withFile(f fs.FileHandle, flags int, do func(fd int) error) error {
	if h, ok := f.(*handle); ok && (flags == unix.O_RDONLY || h.writes) {
		return do(h.fd)
	}
	fd, err := n.open(flags | unix.O_NONBLOCK | unix.O_NOCTTY)
	if err == unix.ENOENT {
		fd, err = n.handles.duplicate(n.StableAttr().Ino)
	}
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return do(fd)
}

// Readlink returns the target of a link. Nobody follows it here.
func (n *node) Readlink(context.Context) ([]byte, syscall.Errno) {
	if err := n.a.check(); err != nil {
		return nil, errno(err)
	}
	fd, err := n.open(unix.O_PATH)
	if err != nil {
		return nil, errno(err)
	}
	defer unix.Close(fd)
	p := make([]byte, unix.PathMax)
	size, err := unix.Readlinkat(fd, "", p)
	if err != nil {
		return nil, errno(err)
	}
	return p[:size], 0
}

// Statfs describes the volume.
func (n *node) Statfs(_ context.Context, out *fuse.StatfsOut) syscall.Errno {
	var s syscall.Statfs_t
	if err := syscall.Fstatfs(int(n.a.place.Fd()), &s); err != nil {
		return errno(err)
	}
	out.FromStatfsT(&s)
	return 0
}

// Readdir waits until nothing arrives any more.
func (n *node) Readdir(ctx context.Context) (fs.DirStream, syscall.Errno) {
	if err := n.a.waitEnd(ctx); err != nil {
		return nil, errno(err)
	}
	fd, err := n.open(unix.O_RDONLY | unix.O_DIRECTORY)
	if err != nil {
		return nil, errno(err)
	}
	entries, number := fs.NewLoopbackDirStreamFd(fd)
	// Only the methods of fs.DirStream: what NewLoopbackDirStreamFd returns passes ioctls on.
	return struct{ fs.DirStream }{entries}, number
}

// Open opens a file. A file that is opened for writing has arrived.
func (n *node) Open(ctx context.Context, flags uint32) (fs.FileHandle, uint32, syscall.Errno) {
	writes := flags&unix.O_ACCMODE != unix.O_RDONLY || flags&unix.O_TRUNC != 0
	err := n.a.check()
	if writes {
		err = n.a.waitWhole(ctx, n.StableAttr().Ino)
	}
	if err != nil {
		return nil, 0, errno(err)
	}
	fd, err := n.open(int(flags&(unix.O_ACCMODE|unix.O_TRUNC)) | unix.O_NONBLOCK | unix.O_NOCTTY)
	if err != nil {
		return nil, 0, errno(err)
	}
	return n.opened(fd, writes)
}

// opened makes a handle of a descriptor.
func (n *node) opened(fd int, writes bool) (fs.FileHandle, uint32, syscall.Errno) {
	x, err := n.a.describe(fd, "")
	if err == nil && x.Mode&unix.S_IFMT != unix.S_IFREG {
		err = unix.EIO // something else has come in the place of the file
	}
	if err != nil {
		unix.Close(fd)
		return nil, 0, errno(err)
	}
	h := n.handles.add(&handle{a: n.a, fd: fd, ino: x.Ino, writes: writes, arriving: n.a.arriving(x.Ino)})
	options := uint32(fuse.FOPEN_NOFLUSH | fuse.FOPEN_KEEP_CACHE)
	if h.arriving != nil {
		options = fuse.FOPEN_NOFLUSH | fuse.FOPEN_DIRECT_IO // the kernel asks for what is read, and for no page more
	}
	return h, options, 0
}

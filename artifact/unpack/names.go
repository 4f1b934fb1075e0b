package unpack

import (
	"context"
	"os"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

var (
	_ fs.NodeCreater   = (*node)(nil)
	_ fs.NodeMkdirer   = (*node)(nil)
	_ fs.NodeMknoder   = (*node)(nil)
	_ fs.NodeSymlinker = (*node)(nil)
	_ fs.NodeLinker    = (*node)(nil)
	_ fs.NodeUnlinker  = (*node)(nil)
	_ fs.NodeRmdirer   = (*node)(nil)
	_ fs.NodeRenamer   = (*node)(nil)
)

// made gives what is new to the caller, with its mode, and makes its node.
func (n *node) made(ctx context.Context, dir int, name string, mode uint32, out *fuse.EntryOut) (*fs.Inode, error) {
	caller, ok := fuse.FromContext(ctx)
	if ok && os.Geteuid() == 0 {
		gid := int(caller.Gid)
		if above, err := n.a.describe(dir, ""); err == nil && above.Mode&unix.S_ISGID != 0 {
			gid = -1 // as the kernel does it
			if mode&unix.S_IFMT == unix.S_IFDIR {
				mode |= unix.S_ISGID
			}
		}
		if err := unix.Fchownat(dir, name, int(caller.Uid), gid, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return nil, err
		}
	}
	// Less the process's umask, and the bits that chown takes away.
	kind := mode & unix.S_IFMT
	if kind == unix.S_IFREG || kind == unix.S_IFDIR {
		fd, err := unix.Openat(dir, name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
		if err != nil {
			return nil, err
		}
		err = unix.Fchmod(fd, mode&0o7777)
		unix.Close(fd)
		if err != nil {
			return nil, err
		}
	}
	return n.named(ctx, dir, name, out)
}

// make makes something with a new name, when all names have arrived.
func (n *node) make(ctx context.Context, name string, mode uint32, out *fuse.EntryOut, do func(dir int) error) (made *fs.Inode, number syscall.Errno) {
	if err := n.a.waitEnd(ctx); err != nil {
		return nil, errno(err)
	}
	number = n.inFolder(func(dir int) error {
		if err := do(dir); err != nil {
			return err
		}
		var err error
		made, err = n.made(ctx, dir, name, mode, out)
		return err
	}, name)
	return made, number
}

// Create makes and opens a file, or opens one that is there.
func (n *node) Create(ctx context.Context, name string, flags, mode uint32, out *fuse.EntryOut) (*fs.Inode, fs.FileHandle, uint32, syscall.Errno) {
	var found *fs.Inode
	var h fs.FileHandle
	var options uint32
	if err := n.a.waitEnd(ctx); err != nil {
		return nil, nil, 0, errno(err)
	}
	how := int(flags&(unix.O_ACCMODE|unix.O_TRUNC)) | unix.O_NOFOLLOW | unix.O_NONBLOCK | unix.O_NOCTTY | unix.O_CLOEXEC
	number := n.inFolder(func(dir int) error {
		fd, err := unix.Openat(dir, name, how|unix.O_CREAT|unix.O_EXCL, 0o600)
		isNew := err == nil
		if err == unix.EEXIST && flags&unix.O_EXCL == 0 {
			fd, err = unix.Openat(dir, name, how, 0)
		}
		if err != nil {
			return err
		}
		var number syscall.Errno
		if h, options, number = n.opened(fd, true); number != 0 {
			return number
		}
		if isNew {
			found, err = n.made(ctx, dir, name, unix.S_IFREG|mode&0o7777, out)
		} else {
			var x *unix.Statx_t
			if x, err = n.a.describe(fd, ""); err == nil {
				found = n.child(ctx, x, out)
			}
		}
		if err != nil {
			h.(*handle).Release(ctx)
		}
		return err
	}, name)
	return found, h, options, number
}

// Mkdir makes a folder.
func (n *node) Mkdir(ctx context.Context, name string, mode uint32, out *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	return n.make(ctx, name, unix.S_IFDIR|mode&0o7777, out, func(dir int) error { return unix.Mkdirat(dir, name, 0o700) })
}

// Mknod makes a file, a FIFO or a socket.
func (n *node) Mknod(ctx context.Context, name string, mode, _ uint32, out *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	switch mode & unix.S_IFMT {
	case 0:
		mode |= unix.S_IFREG
	case unix.S_IFREG, unix.S_IFIFO, unix.S_IFSOCK:
	default:
		return nil, unix.EPERM
	}
	return n.make(ctx, name, mode, out, func(dir int) error { return unix.Mknodat(dir, name, mode, 0) })
}

// Symlink makes a symbolic link.
func (n *node) Symlink(ctx context.Context, target, name string, out *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	return n.make(ctx, name, unix.S_IFLNK, out, func(dir int) error { return unix.Symlinkat(target, dir, name) })
}

// Link gives a file another name.
func (n *node) Link(ctx context.Context, target fs.InodeEmbedder, name string, out *fuse.EntryOut) (found *fs.Inode, number syscall.Errno) {
	if err := n.a.waitEnd(ctx); err != nil {
		return nil, errno(err)
	}
	number = n.inFolder(func(dir int) error {
		old, above := target.EmbeddedInode().Parent()
		if above == nil {
			return unix.ENOENT
		}
		from, err := above.Operations().(*node).open(unix.O_PATH | unix.O_DIRECTORY)
		if err != nil {
			return err
		}
		defer unix.Close(from)
		if err := unix.Linkat(from, old, dir, name, 0); err != nil {
			return err
		}
		found, err = n.named(ctx, dir, name, out)
		return err
	}, name)
	return found, number
}

// settled waits until a name can be taken away: a file has arrived, or a folder gets no more files. A name that is not
// there may still arrive.
func (n *node) settled(ctx context.Context, dir int, name string) error {
	x, err := n.a.describe(dir, name)
	if err != nil || isFolder(x) {
		return n.a.waitEnd(ctx)
	}
	return n.a.waitWhole(ctx, x.Ino)
}

// Unlink removes a file that has arrived.
func (n *node) Unlink(ctx context.Context, name string) syscall.Errno {
	return n.inFolder(func(dir int) error {
		if err := n.settled(ctx, dir, name); err != nil {
			return err
		}
		return unix.Unlinkat(dir, name, 0)
	}, name)
}

// Rmdir removes a folder.
func (n *node) Rmdir(ctx context.Context, name string) syscall.Errno {
	return n.inFolder(func(dir int) error {
		if err := n.a.waitEnd(ctx); err != nil {
			return err
		}
		return unix.Unlinkat(dir, name, unix.AT_REMOVEDIR)
	}, name)
}

// Rename renames what has arrived.
func (n *node) Rename(ctx context.Context, name string, newParent fs.InodeEmbedder, newName string, flags uint32) syscall.Errno {
	if flags&^uint32(unix.RENAME_NOREPLACE|unix.RENAME_EXCHANGE) != 0 {
		return unix.EINVAL
	}
	return n.inFolder(func(from int) error {
		to, err := newParent.EmbeddedInode().Operations().(*node).open(unix.O_PATH | unix.O_DIRECTORY)
		if err != nil {
			return err
		}
		defer unix.Close(to)
		if err := n.settled(ctx, from, name); err != nil {
			return err
		}
		if err := n.settled(ctx, to, newName); err != nil {
			return err
		}
		return unix.Renameat2(from, name, to, newName, uint(flags))
	}, name, newName)
}

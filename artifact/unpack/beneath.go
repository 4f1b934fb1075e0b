package unpack

import (
	"errors"
	"strings"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// openBeneath opens what is at a path below the placeholder, through no link and into no other mount. A path of "" is the
// placeholder itself.
func (a *Artifact) openBeneath(path string, flags int) (int, error) {
	if a.folder == nil {
		return a.openFile(flags)
	}
	if path == "" {
		path = "."
	}
	how := &unix.OpenHow{
		Flags:   uint64(flags | unix.O_NOFOLLOW | unix.O_CLOEXEC),
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS | unix.RESOLVE_NO_XDEV,
	}
	for {
		fd, err := unix.Openat2(int(a.place.Fd()), path, how)
		if err != unix.EINTR && err != unix.EAGAIN {
			return fd, err
		}
	}
}

// openFile opens the placeholder that is a file: it has no name here.
func (a *Artifact) openFile(flags int) (int, error) {
	fd, err := unix.FcntlInt(a.place.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err == nil && flags&unix.O_TRUNC != 0 {
		if err = unix.Ftruncate(fd, 0); err != nil {
			unix.Close(fd)
		}
	}
	return fd, err
}

// isName reports whether something is a name in a folder.
func isName(name string) bool {
	return name != "" && name != "." && name != ".." && !strings.ContainsAny(name, "/\x00")
}

// describe describes what is in a folder, or with the name "" the open file itself, as it will be when it has arrived.
func (a *Artifact) describe(fd int, name string) (*unix.Statx_t, error) {
	a.making.RLock()
	defer a.making.RUnlock()
	var x unix.Statx_t
	flags := unix.AT_SYMLINK_NOFOLLOW | unix.AT_NO_AUTOMOUNT
	if name == "" {
		flags |= unix.AT_EMPTY_PATH
	}
	if err := unix.Statx(fd, name, flags, unix.STATX_BASIC_STATS|unix.STATX_BTIME, &x); err != nil {
		return nil, err
	}
	if a.now != nil && a.now.ino == x.Ino {
		x.Size = uint64(a.now.size)
		x.Blocks = (x.Size + 511) / 512
		if !a.now.modified.IsZero() {
			x.Mtime = unix.StatxTimestamp{Sec: a.now.modified.Unix(), Nsec: uint32(a.now.modified.Nanosecond())}
		}
	}
	return &x, nil
}

// generation tells a file from an earlier one with the same number: it is the time when the file was made.
func generation(x *unix.Statx_t) uint64 {
	return uint64(x.Btime.Sec)*1e9 + uint64(x.Btime.Nsec)
}

func isFolder(x *unix.Statx_t) bool { return x.Mode&unix.S_IFMT == unix.S_IFDIR }

func copyAttributes(out *fuse.Attr, x *unix.Statx_t) {
	*out = fuse.Attr{
		Ino: x.Ino, Size: x.Size, Blocks: x.Blocks, Mode: uint32(x.Mode), Nlink: x.Nlink, Blksize: x.Blksize,
		Atime: uint64(x.Atime.Sec), Atimensec: x.Atime.Nsec,
		Mtime: uint64(x.Mtime.Sec), Mtimensec: x.Mtime.Nsec,
		Ctime: uint64(x.Ctime.Sec), Ctimensec: x.Ctime.Nsec,
		Owner: fuse.Owner{Uid: x.Uid, Gid: x.Gid},
		Rdev:  uint32(unix.Mkdev(x.Rdev_major, x.Rdev_minor)),
	}
}

// errno returns the error number of an error.
func errno(err error) syscall.Errno {
	if err == nil {
		return 0
	}
	if number := syscall.Errno(0); errors.As(err, &number) {
		return number
	}
	return unix.EIO
}

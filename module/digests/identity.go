package digests

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// identity distinguishes the content of a regular file of a local disk from any other, as long as the machine
// runs and the file system stays mounted: only the kernel sets the time of the last change, and any write or
// other change to a file sets it.
// See RATIONALE.md, "Why may digests be remembered?"
type identity struct {
	Device, Inode uint64
	Generation    uint32 // distinguishes the files that have had the inode's number
	Size          int64
	Modified      int64 // ns since 1970
	Changed       int64
}

// getVersion is the ioctl of ext4 and xfs for the inode's generation (FS_IOC_GETVERSION in linux/fs.h; it
// writes an int).
const getVersion = 0x80087601

var errUncertain = errors.New("the file system does not vouch for what files hold")

// identify fails for files that could change and look the same. It accepts files of ext4 and xfs on a block
// device. It leaves out, among others: network and FUSE file systems, whose times a server sets; tmpfs, whose
// files have no generation; btrfs and overlay, whose device numbers are reused from one mount to the next.
func identify(file *os.File) (identity, error) {
	fd := int(file.Fd())
	var fs unix.Statfs_t
	if err := unix.Fstatfs(fd, &fs); err != nil {
		return identity{}, fmt.Errorf("statfs %s: %w", file.Name(), err)
	}
	if fs.Type != unix.EXT4_SUPER_MAGIC && fs.Type != unix.XFS_SUPER_MAGIC {
		return identity{}, errUncertain
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return identity{}, &os.PathError{Op: "stat", Path: file.Name(), Err: err}
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG || unix.Major(st.Dev) == 0 {
		return identity{}, errUncertain
	}
	generation, err := unix.IoctlGetUint32(fd, getVersion)
	if err != nil {
		return identity{}, errUncertain
	}
	return identity{
		Device: st.Dev, Inode: st.Ino, Generation: generation, Size: st.Size,
		Modified: st.Mtim.Nano(), Changed: st.Ctim.Nano(),
	}, nil
}

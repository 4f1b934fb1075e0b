package mount

import (
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/wasmshim/containerd-shim-wasm/artifact/object"
)

// node is a file, a folder or a link. All fields are guarded by the lock of its files.
type node struct {
	id       uint64
	mode     uint32 // type and permissions
	uid, gid uint32
	links    uint32 // names, of a folder also its own and those of its folders
	size     uint64
	accessed time.Time
	modified time.Time
	changed  time.Time

	lookups  uint64 // that the kernel has not taken back
	opens    int
	parent   *node // of a folder
	children map[string]*node
	object   *object.Object // where the content is, or nil
	logged   map[string]struct{}
}

func (n *node) isFolder() bool { return n.mode&unix.S_IFMT == unix.S_IFDIR }

func (n *node) setTimes(modified, start time.Time) {
	if modified.IsZero() {
		modified = start
	}
	n.accessed, n.modified, n.changed = modified, modified, start
}

// attach gives a node a name.
func (n *node) attach(name string, child *node) {
	n.children[name] = child
	if child.isFolder() {
		child.parent = n
		n.links++
	}
}

// attributes writes what the kernel is to know.
func (n *node) attributes(out *fuse.Attr) {
	*out = fuse.Attr{
		Ino: n.id, Size: n.size, Blocks: (n.size + 511) / 512, Mode: n.mode, Nlink: n.links, Blksize: blockSize,
		Owner: fuse.Owner{Uid: n.uid, Gid: n.gid},
	}
	out.SetTimes(&n.accessed, &n.modified, &n.changed)
}

// blockSize is what programs read at once if they ask for the best size.
const blockSize = 128 << 10

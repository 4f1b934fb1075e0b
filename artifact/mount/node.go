package mount

import (
	"os"
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

	made     bool   // by the guest
	lookups  uint64 // that the kernel has not taken back
	opens    int
	parent   *node // of a folder
	children map[string]*node
	place    int            // among the siblings, from 1
	target   string         // of a link
	object   *object.Object // as which the file began, or nil
	lazy     bool           // the content is still that of the object
	local    *os.File       // the content, from the first write on
	copying  *copying       // on the way from the object to local
	taken    int64          // of the room, by local
	writes   writes
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

// detach takes a name from a node.
func (n *node) detach(name string) *node {
	child := n.children[name]
	delete(n.children, name)
	if child.isFolder() {
		n.links--
	}
	return child
}

// touch notes that the content has changed.
func (n *node) touch() {
	n.modified = time.Now()
	n.changed = n.modified
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

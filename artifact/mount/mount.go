package mount

import (
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/wasmshim/containerd-shim-wasm/artifact/object"
)

// File is an object as a file.
type File struct {
	Object   *object.Object // nil for an empty file
	Mode     fs.FileMode    // the permissions, 0 for 0644
	Modified time.Time      // zero for the server's start, which is when a file would have been downloaded
	UID, GID uint32
	// Spool is the folder for the content of a file that is written to, for [ServeFile] only. It may be nil: then the
	// mount cannot be changed (EROFS).
	Spool *os.Root
	Room  *Room // for that and for what other mounts keep; nil for one of its own, of any size
}

// Tree is a folder of files.
type Tree struct {
	Files    map[string]File // by path, with slashes
	Mode     fs.FileMode     // the permissions of folders, 0 for 0755
	Modified time.Time       // of folders, zero for the server's start
	UID, GID uint32          // of folders
	Spool    *os.Root        // as in [File], for all files
	Room     *Room
	// Grown (optional) is called when a file has been written beyond a part of [PartSize]. It must not block.
	Grown func()
	// MaxSize is the largest size of a file, in bytes (EFBIG), 0 for no bound.
	MaxSize int64
	// Keep keeps the files' content when the mount has ended, until [Server.Discard].
	Keep bool
}

// ServeFile serves a mount whose root is the file. It takes the descriptor over, which has to be mounted already.
func ServeFile(fuse *os.File, f File, log *slog.Logger) (*Server, error) {
	all := newFiles(f.Spool, f.Room, log)
	all.root = all.file(f)
	all.add(all.root)
	return serve(fuse, all, log)
}

// ServeTree serves a mount whose root is a folder. It takes the descriptor over, which has to be mounted already.
func ServeTree(fuse *os.File, t Tree, log *slog.Logger) (*Server, error) {
	all := newFiles(t.Spool, t.Room, log)
	all.grown, all.keep = t.Grown, t.Keep
	if t.MaxSize > 0 {
		all.maxSize = uint64(t.MaxSize)
	}
	if err := all.plant(t); err != nil {
		fuse.Close()
		return nil, err
	}
	return serve(fuse, all, log)
}

// file returns a node for a file.
func (all *files) file(f File) *node {
	mode := f.Mode.Perm()
	if mode == 0 {
		mode = 0o644
	}
	n := &node{mode: unix.S_IFREG | uint32(mode), uid: f.UID, gid: f.GID, links: 1, object: f.Object, lazy: f.Object != nil}
	if f.Object != nil {
		n.size = uint64(f.Object.Info().Size)
	}
	n.setTimes(f.Modified, all.start)
	return n
}

// folder returns a node for a folder of a tree.
func (all *files) folder(t Tree) *node {
	mode := t.Mode.Perm()
	if mode == 0 {
		mode = 0o755
	}
	n := &node{mode: unix.S_IFDIR | uint32(mode), uid: t.UID, gid: t.GID, links: 2, children: map[string]*node{}}
	n.setTimes(t.Modified, all.start)
	return n
}

// plant makes the nodes of a tree.
func (all *files) plant(t Tree) error {
	all.root = all.folder(t)
	all.add(all.root)
	folders := map[string]*node{".": all.root}
	var folder func(name string) (*node, error)
	folder = func(name string) (*node, error) {
		if n := folders[name]; n != nil {
			return n, nil
		}
		above, err := folder(path.Dir(name))
		if err != nil {
			return nil, err
		}
		if above.children[path.Base(name)] != nil {
			return nil, fmt.Errorf("%q is a file and a folder of other files", name)
		}
		n := all.folder(t)
		all.add(n)
		above.attach(path.Base(name), n)
		folders[name] = n
		return n, nil
	}
	names := make([]string, 0, len(t.Files))
	for name := range t.Files {
		names = append(names, name)
	}
	all.siblings.last = -1
	slices.Sort(names) // a file comes before those below its name
	for _, name := range names {
		if !isPath(name) {
			return fmt.Errorf("%q is no path of a file", name)
		}
		above, err := folder(path.Dir(name))
		if err != nil {
			return err
		}
		if above.children[path.Base(name)] != nil {
			return fmt.Errorf("%q is a file and a folder of other files", name)
		}
		n := all.file(t.Files[name])
		all.add(n)
		all.siblings.order = append(all.siblings.order, n)
		n.place = len(all.siblings.order)
		above.attach(path.Base(name), n)
	}
	return nil
}

// isPath reports whether each part of a path is a name that a folder can have. Keys of S3 may have any bytes.
func isPath(name string) bool {
	for part := range strings.SplitSeq(name, "/") {
		if part == "" || part == "." || part == ".." || len(part) > unix.NAME_MAX || strings.ContainsRune(part, 0) {
			return false
		}
	}
	return true
}

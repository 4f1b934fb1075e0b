package unpack

import (
	"os"
	"sync"
	"time"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/wasmshim/containerd-shim-wasm/artifact/internal/connection"
)

// valid is how long the kernel may keep what it knows: only this mount changes the files.
const valid = time.Hour

// Server serves an artifact.
type Server struct {
	*connection.Connection
	open *handles
}

// Serve serves the artifact by a descriptor of /dev/fuse, which it takes over. The descriptor is mounted already, with the
// options rootmode=100644 for a file and rootmode=40755 for a folder, user_id, group_id, default_permissions and
// allow_other: the kernel checks permissions, the package does not. It is called once.
func (a *Artifact) Serve(device *os.File) (*Server, error) {
	all := &handles{all: map[*handle]struct{}{}}
	root := &node{a: a, handles: all}
	info, err := a.describe(int(a.place.Fd()), "")
	if err != nil {
		device.Close()
		return nil, err
	}
	timeout := valid
	files := fs.NewNodeFS(root, &fs.Options{
		EntryTimeout: &timeout, AttrTimeout: &timeout, NegativeTimeout: &timeout, NullPermissions: true,
		RootStableAttr: &fs.StableAttr{Ino: info.Ino, Gen: generation(info)},
	})
	if a.folder == nil {
		files = fileRoot{files}
	}
	c, err := connection.Serve(device, files, connection.Options{
		Log:    a.options.Log.With("name", a.options.Name),
		Ending: func() { a.hangUp.Do(func() { close(a.gone) }) },
		Ended:  all.close,
	})
	if err != nil {
		return nil, err
	}
	return &Server{c, all}, nil
}

// fileRoot makes the root a regular file. Package fs takes it for a folder.
type fileRoot struct{ fuse.RawFileSystem }

// GetAttr returns the file's attributes.
func (f fileRoot) GetAttr(cancel <-chan struct{}, in *fuse.GetAttrIn, out *fuse.AttrOut) fuse.Status {
	status := f.RawFileSystem.GetAttr(cancel, in, out)
	out.Mode = out.Mode&^unix.S_IFMT | unix.S_IFREG
	return status
}

// SetAttr changes the file's attributes.
func (f fileRoot) SetAttr(cancel <-chan struct{}, in *fuse.SetAttrIn, out *fuse.AttrOut) fuse.Status {
	status := f.RawFileSystem.SetAttr(cancel, in, out)
	out.Mode = out.Mode&^unix.S_IFMT | unix.S_IFREG
	return status
}

// handles are the open files of a server. The kernel does not close those of a mount that is gone.
type handles struct {
	mu  sync.Mutex
	all map[*handle]struct{}
}

func (h *handles) add(one *handle) *handle {
	h.mu.Lock()
	defer h.mu.Unlock()
	one.of = h
	h.all[one] = struct{}{}
	return one
}

// duplicate returns a new descriptor of an open file, which may have no name any more.
func (h *handles) duplicate(ino uint64) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for one := range h.all {
		if one.ino == ino {
			return unix.FcntlInt(uintptr(one.fd), unix.F_DUPFD_CLOEXEC, 0)
		}
	}
	return -1, unix.ENOENT
}

func (h *handles) remove(one *handle) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if _, ok := h.all[one]; ok {
		delete(h.all, one)
		unix.Close(one.fd)
	}
}

func (h *handles) close() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for one := range h.all {
		delete(h.all, one)
		unix.Close(one.fd)
	}
}

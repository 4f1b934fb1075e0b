package mount

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// PartSize is the size of the parts of a file whose changes a [Content] counts, in bytes.
const PartSize = 16 << 20

// measure notes how much of the room a file takes now. A file may have holes.
func (all *files) measure(n *node) {
	if n.local == nil {
		return
	}
	var st unix.Stat_t
	if unix.Fstat(int(n.local.Fd()), &st) != nil {
		return
	}
	now := st.Blocks * 512
	all.room.take(now - n.taken)
	n.taken = now
}

// writes counts the changes of a file's parts.
type writes struct {
	all   int64           // changes of the whole: its size became smaller
	parts map[int64]int64 // by number, from 0
}

// reset notes a change of the whole.
func (w *writes) reset() { w.all, w.parts = w.all+1, nil }

func (w *writes) note(off, end int64) {
	if w.parts == nil {
		w.parts = map[int64]int64{}
	}
	for part := off / PartSize; part*PartSize < end; part++ {
		w.parts[part]++
	}
}

// Content is the content of a regular file that has been written, which may still change. Two are equal if they are of the
// same file.
type Content struct {
	all  *files
	node *node
}

// Size returns the file's size, in bytes.
func (c Content) Size() int64 {
	c.all.mu.Lock()
	defer c.all.mu.Unlock()
	return int64(c.node.size)
}

// Changes returns a number that differs whenever a part has been changed.
func (c Content) Changes(part int64) [2]int64 {
	c.all.mu.Lock()
	defer c.all.mu.Unlock()
	return [2]int64{c.node.writes.all, c.node.writes.parts[part]}
}

// ReadAt reads the file as it is now.
func (c Content) ReadAt(p []byte, off int64) (int, error) {
	c.all.mu.Lock()
	local, size := c.node.local, int64(c.node.size)
	c.all.mu.Unlock()
	if off >= size {
		return 0, io.EOF
	}
	if local == nil {
		return 0, os.ErrClosed
	}
	return local.ReadAt(p, off)
}

// errNotFile is the error for what is no regular file.
var errNotFile = errors.New("it is not a regular file")

// Lookup returns the regular file at a path of the mount, which follows no links. The error is [os.ErrNotExist] if there
// is none.
func (s *Server) Lookup(name string) (Content, error) {
	all := s.files
	all.mu.Lock()
	defer all.mu.Unlock()
	n := all.root
	for part := range strings.SplitSeq(name, "/") {
		if n = n.children[part]; n == nil {
			return Content{}, &os.PathError{Op: "find", Path: name, Err: os.ErrNotExist}
		}
	}
	if n.mode&unix.S_IFMT != unix.S_IFREG {
		return Content{}, &os.PathError{Op: "find", Path: name, Err: errNotFile}
	}
	return Content{all, n}, nil
}

// Entry is what a folder of a mount has.
type Entry struct {
	Path     string // with slashes
	Mode     uint32 // as of stat(2)
	Modified time.Time
	Target   string // of a link
	Content  Content
}

// maxPaths bounds the paths of [Server.Entries] together, in bytes: folders may be nested without end.
const maxPaths = 32 << 20

// errPaths is the error for a tree whose paths are too long.
var errPaths = fmt.Errorf("the folder has too many files, or too deep ones: their paths have more than %d MiB", maxPaths>>20)

// Entries returns all that the mount has, each folder before what is in it.
func (s *Server) Entries() ([]Entry, error) {
	all := s.files
	all.mu.Lock()
	defer all.mu.Unlock()
	var found []Entry
	room := maxPaths
	var walk func(at string, n *node) error
	walk = func(at string, n *node) error {
		for _, e := range sorted(n) {
			if room -= len(at) + 1 + len(e.name); room < 0 {
				return errPaths
			}
			name := path.Join(at, e.name)
			found = append(found, Entry{name, e.node.mode, e.node.modified, e.node.target, Content{all, e.node}})
			if !e.node.isFolder() {
				continue
			}
			if err := walk(name, e.node); err != nil {
				return err
			}
		}
		return nil
	}
	return found, walk("", all.root)
}

// Freeze ends all changes: they fail with EROFS from now on, and none is on its way when it returns.
func (s *Server) Freeze() {
	s.files.mu.Lock()
	s.files.frozen = true
	s.files.mu.Unlock()
	s.files.writing.Wait()
}

// Discard closes the content of all files of a mount that keeps it.
func (s *Server) Discard() { s.files.close() }

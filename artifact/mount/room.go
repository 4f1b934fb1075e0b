package mount

import (
	"crypto/rand"
	"fmt"
	"math"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// Room bounds what several mounts keep together: bytes in a folder, the open files that have them, and
// the nodes that a guest makes in memory, with their further names.
type Room struct {
	limit    int64
	maxFiles int

	mu    sync.Mutex
	left  int64
	files int
	nodes int
}

// NewRoom returns the room of a container, with so many bytes. Of the files that the process may have open, half stay for
// what else it does.
func NewRoom(limit int64) *Room { return &Room{limit: limit, left: limit, maxFiles: maxFiles()} }

// Boundless returns room for any number of bytes.
func Boundless() *Room { return NewRoom(math.MaxInt64) }

func maxFiles() int {
	var limit unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &limit) != nil || limit.Cur < 64 {
		return 32
	}
	return int(min(limit.Cur, 1<<20)) / 2
}

// Reserve takes n bytes, and reports false if there are fewer.
func (r *Room) Reserve(n int64) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if n < 0 || n > r.left {
		return false
	}
	r.left -= n
	return true
}

// Release gives n bytes back.
func (r *Room) Release(n int64) { r.take(-n) }

// take takes what a file has already got, perhaps more than there is.
func (r *Room) take(n int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.left -= n
}

// Limit returns the bound, in bytes.
func (r *Room) Limit() int64 { return r.limit }

// errFiles is the error for a file more than the process can keep.
var errFiles = fmt.Errorf("too many files have been written: %w", unix.ENOSPC)

// Unnamed makes a file without a name in a folder. Its bytes are to be reserved.
func (r *Room) Unnamed(in *os.Root) (*os.File, error) {
	r.mu.Lock()
	if r.files >= r.maxFiles {
		r.mu.Unlock()
		return nil, errFiles
	}
	r.files++
	r.mu.Unlock()
	f, err := unnamed(in)
	if err != nil {
		r.dropped()
		return nil, err
	}
	return f, nil
}

// Drop closes a file that Unnamed has made.
func (r *Room) Drop(f *os.File) {
	f.Close()
	r.dropped()
}

func (r *Room) dropped() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.files--
}

func unnamed(in *os.Root) (*os.File, error) {
	name := rand.Text()
	f, err := in.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, err
	}
	if err := in.Remove(name); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// maxNodes bounds what a guest can make the server remember, in all mounts.
const maxNodes = 1 << 20

// hasNode reports whether there is room for another node.
func (r *Room) hasNode() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.nodes < maxNodes
}

func (r *Room) addNodes(n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.nodes += n
}

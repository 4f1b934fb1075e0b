package mount

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/wasmshim/containerd-shim-wasm/artifact/internal/testbucket"
	"github.com/wasmshim/containerd-shim-wasm/artifact/object"
)

// stalled is a store whose one object can be asked for, and comes when the gate is closed, or an error if it fails.
type stalled struct {
	bucket  object.Bucket
	info    object.Info
	content []byte
	asked   chan struct{}
	gate    chan struct{}
	fails   bool
}

func newStalled(t *testing.T, size int) *stalled {
	t.Helper()
	s := &stalled{content: random(size), asked: make(chan struct{}, 100), gate: make(chan struct{})}
	modified := time.Unix(1e9, 0)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.asked <- struct{}{}
		<-s.gate
		if s.fails {
			w.WriteHeader(http.StatusForbidden)
			return
		}
		w.Header().Set("ETag", `"e"`)
		http.ServeContent(w, r, "", modified, bytes.NewReader(s.content))
	}))
	t.Cleanup(server.Close)
	s.bucket = object.Bucket{Client: testbucket.Core(t, server.Listener.Addr().String()), Name: "bucket"}
	s.info = object.Info{Key: "key", Size: int64(size), ETag: "e", Modified: modified}
	return s
}

// openBeside opens a file for writing in another process, which waits for the copy.
func openBeside(t *testing.T, s *stalled, name string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command("sh", "-c", `exec 3>>"$0"`, name)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	<-s.asked
	return cmd
}

// Inputs of a container that are copied to be written to take room while they are on their way: together no more than it has,
// in whichever mounts they are.
func TestCopiesTakeRoom(t *testing.T) {
	const size = 2 << 20
	room := NewRoom(3 << 20)
	for _, fails := range []bool{true, false} {
		one, other := newStalled(t, size), newStalled(t, size)
		one.fails = fails
		close(other.gate)
		quiet := slog.New(slog.DiscardHandler)
		target, _ := mountFile(t, File{Object: newCache(t, 8<<20).Open(one.bucket, one.info), Spool: openRoot(t), Room: room}, quiet)
		second, _ := mountFile(t, File{Object: newCache(t, 8<<20).Open(other.bucket, other.info), Spool: openRoot(t), Room: room}, quiet)
		cmd := openBeside(t, one, target)
		if err := os.Truncate(second, 1); !errors.Is(err, unix.ENOSPC) {
			t.Errorf("a copy beside another: %v", err)
		}
		if err := os.WriteFile(second, make([]byte, 512<<10), 0); err != nil {
			t.Errorf("a file that needs no copy: %v", err)
		}
		if err := os.WriteFile(second, make([]byte, size), 0); !errors.Is(err, unix.ENOSPC) {
			t.Errorf("a file that is too large beside a copy: %v", err)
		}
		close(one.gate)
		if err := cmd.Wait(); (err == nil) == fails {
			t.Errorf("the copy, which fails: %v: %v", fails, err)
		}
		if fails {
			if err := os.WriteFile(second, make([]byte, size), 0); err != nil {
				t.Errorf("after a failed copy: %v", err)
			}
		} else if got, err := os.ReadFile(target); err != nil || !bytes.Equal(got, one.content) {
			t.Errorf("the copy has %d bytes: %v", len(got), err)
		}
		if err := errors.Join(os.Truncate(target, 0), os.Truncate(second, 0)); err != nil {
			t.Error(err)
		}
		if room.mu.Lock(); room.left != room.limit {
			t.Errorf("%d bytes are taken by empty files", room.limit-room.left)
		}
		room.mu.Unlock()
	}
}

// The files that are kept open are counted over all mounts of a container.
func TestFilesOfAllMounts(t *testing.T) {
	room := NewRoom(1 << 20)
	room.maxFiles = 4
	one, _ := mountTree(t, Tree{Files: map[string]File{"a": {}}, Spool: openRoot(t), Room: room}, slog.New(slog.DiscardHandler))
	other, _ := mountTree(t, Tree{Files: map[string]File{"a": {}}, Spool: openRoot(t), Room: room}, slog.New(slog.DiscardHandler))
	for i := range 2 {
		if err := errors.Join(os.WriteFile(fmt.Sprint(one, "/", i), []byte("x"), 0o600), os.WriteFile(fmt.Sprint(other, "/", i), []byte("x"), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	for _, dir := range []string{one, other} {
		if err := os.WriteFile(dir+"/more", []byte("x"), 0o600); !errors.Is(err, unix.ENOSPC) {
			t.Errorf("a file too many: %v", err)
		}
	}
	if err := os.Remove(one + "/0"); err != nil {
		t.Fatal(err)
	}
	later(func() error { return os.WriteFile(other+"/more", []byte("x"), 0o600) })
}

// So are the nodes that a container makes.
func TestNodesOfAllMounts(t *testing.T) {
	room := NewRoom(1 << 20)
	one, _ := mountTree(t, Tree{Files: map[string]File{"a": {}}, Spool: openRoot(t), Room: room}, slog.New(slog.DiscardHandler))
	other, _ := mountTree(t, Tree{Files: map[string]File{"a": {}}, Spool: openRoot(t), Room: room}, slog.New(slog.DiscardHandler))
	room.addNodes(maxNodes - 1)
	if err := os.Mkdir(one+"/last", 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(other+"/more", 0o700); !errors.Is(err, unix.ENOSPC) {
		t.Errorf("a folder too many: %v", err)
	}
	if err := os.Remove(one + "/last"); err != nil {
		t.Fatal(err)
	}
	later(func() error { return os.Mkdir(other+"/more", 0o700) })
}

// A file has any number of names, each of which takes as much as a node.
func TestNamesOfAFile(t *testing.T) {
	for _, made := range []bool{false, true} {
		room := NewRoom(1 << 20)
		dir, _ := mountTree(t, Tree{Files: map[string]File{"a": {}}, Spool: openRoot(t), Room: room}, slog.New(slog.DiscardHandler))
		name := dir + "/a"
		nodes := 0
		if made {
			name, nodes = dir+"/b", 1
			if err := os.WriteFile(name, nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		room.addNodes(maxNodes - 2 - nodes)
		if err := errors.Join(os.Link(name, dir+"/1"), os.Link(name, dir+"/2")); err != nil {
			t.Fatal(err)
		}
		if err := os.Link(name, dir+"/3"); !errors.Is(err, unix.ENOSPC) {
			t.Fatalf("made %v: a name too many: %v", made, err)
		}
		if err := os.Remove(dir + "/1"); err != nil {
			t.Fatal(err)
		}
		later(func() error { return os.Link(name, dir+"/3") })
		if err := errors.Join(os.Rename(dir+"/3", dir+"/a"), os.Remove(dir+"/2"), os.RemoveAll(name), os.RemoveAll(dir+"/a")); err != nil {
			t.Fatal(err)
		}
		later(func() error {
			room.mu.Lock()
			defer room.mu.Unlock()
			if room.nodes != maxNodes-2-nodes {
				return fmt.Errorf("%d nodes are left", room.nodes)
			}
			return nil
		})
	}
}

// later does what there is room for when the kernel has told the server that a file is gone.
func later(do func() error) {
	for do() != nil {
		time.Sleep(time.Millisecond)
	}
}

package preview1_test

import (
	"os"
	"path/filepath"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// A neighbour that exchanges folders and links on a shared volume, while the guest opens, makes, links, moves and
// removes files there, leads no call out of the root.
func TestNeighbourLeadsNoCallOut(t *testing.T) {
	dir := t.TempDir()
	rootDir, outside := filepath.Join(dir, "root"), filepath.Join(dir, "outside")
	write(t, filepath.Join(outside, "file"), "outside")
	write(t, filepath.Join(rootDir, "v/folder/file"), "inside")
	symlink(t, "../../outside", filepath.Join(rootDir, "v/link"))
	symlink(t, "../../../outside/file", filepath.Join(rootDir, "v/folder/link"))
	stop := make(chan struct{})
	var neighbours sync.WaitGroup
	exchange := func(dir, a, b string) {
		// By its descriptor, because the folder itself is exchanged.
		fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { unix.Close(fd) })
		neighbours.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					unix.Renameat2(fd, a, fd, b, unix.RENAME_EXCHANGE)
				}
			}
		})
	}
	exchange(filepath.Join(rootDir, "v/folder"), "file", "link")
	exchange(filepath.Join(rootDir, "v"), "folder", "link")
	c := ours(t, rootDir)
	below := c.opened("v", onlyDir, mayRead, 0)
	const rounds = 3000
	for range rounds {
		for _, from := range []struct {
			dir    uint64
			prefix string
		}{{root, "v/"}, {below, ""}} {
			for _, path := range []string{"folder/file", "folder/../folder/file", "link/file", "folder/link"} {
				if fd, err := c.open(from.dir, follow, from.prefix+path, 0, mayRead, 0); err == success {
					if text, _ := c.read(fd, 100); text != "inside" {
						t.Fatalf("%s%s is %q", from.prefix, path, text)
					}
					c.want(c.call("fd_close", fd), success)
				}
			}
			if fd, err := c.open(from.dir, follow, from.prefix+"folder/new", create, mayWrite, 0); err == success {
				c.want(c.call("fd_close", fd), success)
			}
			c.path("path_create_directory", from.dir, from.prefix+"folder/made")
			c.two("path_link", from.dir, from.prefix+"folder/file", from.dir, from.prefix+"taken", 0)
			c.two("path_rename", from.dir, from.prefix+"folder/new", from.dir, from.prefix+"folder/moved")
			c.path("path_unlink_file", from.dir, from.prefix+"folder/moved")
			c.path("path_remove_directory", from.dir, from.prefix+"folder/made")
			c.path("path_unlink_file", from.dir, from.prefix+"taken")
		}
	}
	close(stop)
	neighbours.Wait()
	content, err := os.ReadFile(filepath.Join(outside, "file"))
	if err != nil || string(content) != "outside" {
		t.Errorf("the file outside is %q, %v", content, err)
	}
	if entries, err := os.ReadDir(outside); err != nil || len(entries) != 1 {
		t.Errorf("outside there is %v, %v", entries, err)
	}
}

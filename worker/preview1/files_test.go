package preview1_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A link leads where it leads in a native container: an absolute one begins at the root, also if the guest
// opens a path below another directory.
func TestLinksStayInTheRoot(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "secret"), "outside")
	rootDir := filepath.Join(dir, "root")
	write(t, filepath.Join(rootDir, "etc/name"), "inside")
	symlink(t, "/etc/name", filepath.Join(rootDir, "a/absolute"))
	symlink(t, "../etc/name", filepath.Join(rootDir, "a/relative"))
	symlink(t, "../../../../../etc/name", filepath.Join(rootDir, "a/climbing"))
	symlink(t, "/etc", filepath.Join(rootDir, "a/folder"))
	symlink(t, "../../secret", filepath.Join(rootDir, "a/out"))
	symlink(t, filepath.Join(dir, "secret"), filepath.Join(rootDir, "a/out2"))
	c := ours(t, rootDir)
	below := c.opened("a", onlyDir, mayRead, 0)
	for _, test := range []struct {
		path string
		want errno
	}{
		{"absolute", success}, {"relative", success}, {"climbing", success}, {"folder/name", success}, {"folder/../etc/name", success},
		{"out", enoent}, {"out2", enoent}, {"../../secret", eperm}, {"../etc/name", eperm}, {"/etc/name", eperm}, {"folder/../../secret", enoent},
	} {
		for _, from := range []struct {
			dir    uint64
			prefix string
		}{{root, "a/"}, {below, ""}} {
			path, want := from.prefix+test.path, test.want
			if test.path == "../etc/name" && from.dir == root {
				want = success
			}
			if test.path == "folder/../../secret" && from.dir == below {
				want = eperm
			}
			if test.path == "/etc/name" {
				path = test.path
			}
			fd, err := c.open(from.dir, follow, path, 0, mayRead, 0)
			if err != want {
				t.Errorf("%s from %d: error %d, want %d", path, from.dir, err, want)
			}
			if err != success {
				continue
			}
			if text, _ := c.read(fd, 100); text != "inside" {
				t.Errorf("%s from %d is %q", path, from.dir, text)
			}
			c.want(c.call("fd_close", fd), success)
		}
	}
}

// A directory that has been moved has its links resolved from the root only as long as it is where it was.
func TestLinksOfAMovedFolder(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "name"), "inside")
	symlink(t, "/name", filepath.Join(dir, "a/absolute"))
	c := ours(t, dir)
	below := c.opened("a", onlyDir, mayRead, 0)
	if err := os.Rename(filepath.Join(dir, "a"), filepath.Join(dir, "b")); err != nil {
		t.Fatal(err)
	}
	_, err := c.open(below, follow, "absolute", 0, mayRead, 0)
	c.want(err, eperm)
}

// A slash after the name of a link makes the kernel follow it. None leads out that way.
func TestSlashAfterALink(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "out/file"), "outside")
	rootDir := filepath.Join(dir, "root")
	symlink(t, "../out", filepath.Join(rootDir, "link"))
	symlink(t, "../out/file", filepath.Join(rootDir, "file"))
	symlink(t, "../out/new", filepath.Join(rootDir, "new"))
	c := ours(t, rootDir)
	for _, path := range []string{"link/", "link//", "file/", "link/.", "link/..", "link/file"} {
		for _, lookup := range []uint64{0, follow} {
			if s, err := c.status(lookup, path); err == success && path != "link/.." {
				t.Errorf("the status of %s (%d) is %+v", path, lookup, s)
			}
			at, length := c.text(atPath, path)
			if err := c.call("path_filestat_set_times", root, lookup, at, length, 1, 1, 5); err == success && path != "link/.." {
				t.Errorf("the times of %s (%d) were set", path, lookup)
			}
		}
		for _, name := range []string{"path_remove_directory", "path_unlink_file", "path_create_directory"} {
			if err := c.path(name, root, path); err == success {
				t.Errorf("%s %s succeeds", name, path)
			}
		}
		if err := c.two("path_link", root, path, root, "linked", 0); err == success {
			t.Errorf("%s is linked", path)
		}
		if err := c.two("path_rename", root, path, root, "renamed"); err == success {
			t.Errorf("%s is renamed", path)
		}
		at, length := c.text(atPath, path)
		if err := c.call("path_readlink", root, at, length, atData, 100, atResult); err == success {
			t.Errorf("%s is a link", path)
		}
	}
	c.want(c.path("path_create_directory", root, "new/"), eexist)
	if entries, err := os.ReadDir(filepath.Join(dir, "out")); err != nil || len(entries) != 1 {
		t.Errorf("outside of the root there is %v, %v", entries, err)
	}
}

// Nobody writes to a file of proc(5), where the memory of the guest's own process is.
func TestProcessesAreNotWritten(t *testing.T) {
	c := ours(t, "/proc")
	_, err := c.open(root, follow, "self/mem", 0, mayRead|mayWrite, 0)
	c.want(err, eacces)
	_, err = c.open(root, follow, "self/mem", 0, mayWrite, 0)
	c.want(err, eacces)
	for _, path := range []string{"self/fd/0", "self/exe", "self/root/etc/passwd", "self/cwd/x"} {
		if _, err := c.open(root, follow, path, 0, mayRead, 0); err == success && !strings.HasPrefix(path, "self/fd/") {
			t.Errorf("%s leads out of its root", path)
		}
	}
}

// Status, numbers and times are the kernel's.
func TestStatusIsTheKernels(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	write(t, file, "four")
	if err := os.Link(file, filepath.Join(dir, "other")); err != nil {
		t.Fatal(err)
	}
	then := time.Unix(1234567890, 987654321)
	if err := os.Chtimes(file, then, then.Add(time.Nanosecond)); err != nil {
		t.Fatal(err)
	}
	var want unix.Stat_t
	if err := unix.Stat(file, &want); err != nil {
		t.Fatal(err)
	}
	c := ours(t, dir)
	got, err := c.status(0, "other")
	c.want(err, success)
	if got != (status{want.Dev, want.Ino, 4, 2, 4}) {
		t.Errorf("it is %+v", got)
	}
	if a, m := c.number(atResult+40, 8), c.number(atResult+48, 8); a != 1234567890987654321 || m != a+1 {
		t.Errorf("its times are %d and %d", a, m)
	}
	c.want(c.call("fd_filestat_get", c.opened("file", 0, mayRead, 0), atResult), success)
	if c.statusAt() != got {
		t.Errorf("an open one is %+v", c.statusAt())
	}
}

// The kernel's own errors reach the guest.
func TestErrorsAreTheKernels(t *testing.T) {
	dir := t.TempDir()
	for name, options := range map[string]string{"full": "size=16k", "readonly": "size=16k"} {
		at := filepath.Join(dir, name)
		if err := os.Mkdir(at, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := unix.Mount("tmpfs", at, "tmpfs", 0, options); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { unix.Unmount(at, unix.MNT_DETACH) })
	}
	write(t, filepath.Join(dir, "readonly/file"), "")
	if err := unix.Mount("", filepath.Join(dir, "readonly"), "", unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	c := ours(t, dir)
	_, err := c.open(root, follow, "readonly/new", create, mayWrite, 0)
	c.want(err, erofs)
	_, err = c.open(root, follow, "readonly/file", 0, mayWrite, 0)
	c.want(err, erofs)
	c.want(c.path("path_create_directory", root, "readonly/new"), erofs)
	c.want(c.path("path_unlink_file", root, "readonly/file"), erofs)
	fd := c.opened("full/file", create, mayWrite, 0)
	c.vector(atData, 64<<10)
	c.want(c.call("fd_write", fd, atVector, 1, atResult), success) // a part
	c.want(c.call("fd_write", fd, atVector, 1, atResult), enospc)
	c.want(c.call("fd_filestat_set_size", fd, 1<<63), einval)
	c.want(c.two("path_link", root, "full/file", root, "link", 0), exdev)
}

// Files that are no regular ones work: a guest waits for the other end of a FIFO.
func TestFIFOsAndDevices(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mkfifo(filepath.Join(dir, "fifo"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mknod(filepath.Join(dir, "zero"), unix.S_IFCHR|0o666, int(unix.Mkdev(1, 5))); err != nil {
		t.Fatal(err)
	}
	written := make(chan error, 1)
	go func() { written <- os.WriteFile(filepath.Join(dir, "fifo"), []byte("through"), 0) }()
	c := ours(t, dir)
	fd := c.opened("fifo", 0, mayRead, 0)
	text, err := c.read(fd, 100)
	c.want(err, success)
	if text != "through" {
		t.Errorf("the FIFO has %q", text)
	}
	if err := <-written; err != nil {
		t.Error(err)
	}
	text, err = c.read(fd, 100)
	c.want(err, success)
	if text != "" {
		t.Errorf("at the end of the FIFO there is %q", text)
	}
	if _, err := c.open(root, follow, "fifo", 0, mayWrite, nonblock); err != success && err != 60 {
		t.Errorf("a second end: error %d", err)
	}
	if text, err := c.read(c.opened("zero", 0, mayRead, 0), 3); err != success || text != "\x00\x00\x00" {
		t.Errorf("the device has %q, error %d", text, err)
	}
	if s, _ := c.status(0, "zero"); s.kind != 2 {
		t.Errorf("the device has type %d", s.kind)
	}
}

// A large folder is read once, whatever the size of the guest's buffer, and each entry comes once while
// others come and go.
func TestFolderIsReadOnce(t *testing.T) {
	dir := t.TempDir()
	const many = 3000
	for i := range many {
		write(t, filepath.Join(dir, fmt.Sprintf("kept-%04d", i)), "")
	}
	for _, size := range []int{24 + 9, 100, 4096, 65536} {
		c := ours(t, dir)
		fd := c.opened(".", onlyDir, mayRead, 0)
		seen, calls := map[string]int{}, 0
		for cookie, more := uint64(0), true; more; calls++ {
			c.want(c.call("fd_readdir", fd, atData, uint64(size), cookie, atResult), success)
			used := int(c.number(atResult, 4))
			more = used == size
			for at := atData; at+24 <= atData+used; {
				end := at + 24 + int(c.number(at+16, 4))
				if end > atData+used {
					break
				}
				seen[string(c.bytes()[at+24:end])]++
				cookie, at = c.number(at, 8), end
			}
			other := filepath.Join(dir, fmt.Sprintf("other-%d", calls))
			write(t, other, "")
			if err := os.Remove(other); err != nil {
				t.Fatal(err)
			}
		}
		for i := range many {
			if name := fmt.Sprintf("kept-%04d", i); seen[name] != 1 {
				t.Fatalf("with %d bytes: %s comes %d times", size, name, seen[name])
			}
		}
		if seen["."] != 1 || seen[".."] != 1 {
			t.Errorf("with %d bytes: . comes %d times, .. %d", size, seen["."], seen[".."])
		}
	}
}

// A guest cannot get out through a descriptor of a root that it has closed or moved.
func TestRootStaysARoot(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "name"), "inside")
	symlink(t, "/name", filepath.Join(dir, "a/absolute"))
	c := ours(t, dir)
	below, other := c.opened("a", onlyDir, mayRead, 0), c.opened("name", 0, mayRead, 0)
	c.want(c.call("fd_renumber", root, other), success)
	c.want(c.call("fd_fdstat_get", root, atResult), ebadf)
	c.want(c.call("fd_prestat_get", other, atResult), success)
	c.want(c.call("fd_close", other), success)
	if _, err := c.open(below, follow, "absolute", 0, mayRead, 0); err != success {
		t.Errorf("error %d", err)
	}
}

// A guest's memory may move and grow between two calls.
func TestMemoryGrows(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "file"), "content")
	c := ours(t, dir)
	fd := c.opened("file", 0, mayRead, 0)
	const beyond = pages << 16
	c.vector(beyond, 100)
	c.want(c.call("fd_pread", fd, atVector, 1, 0, atResult), trapped)
	if _, err := c.memory.Grow(c.store, 1000); err != nil {
		t.Fatal(err)
	}
	c.want(c.call("fd_pread", fd, atVector, 1, 0, atResult), success)
	if got := string(c.bytes()[beyond : beyond+7]); got != "content" {
		t.Errorf("it has read %q", got)
	}
}

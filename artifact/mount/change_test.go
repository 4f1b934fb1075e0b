package mount

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/wasmshim/containerd-shim-wasm/artifact/internal/testbucket"
)

// openRoot opens a folder for copies, which has to be empty at the end.
func openRoot(t testing.TB) *os.Root {
	t.Helper()
	dir := t.TempDir()
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		root.Close()
		if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
			t.Errorf("left behind: %v, %v", left, err)
		}
	})
	return root
}

// number returns the error number of an error.
func number(err error) any {
	var n syscall.Errno
	if errors.As(err, &n) {
		return n
	}
	return err
}

// change makes a change at random below a folder, and returns what can be seen of it.
func change(dir string, r *rand.Rand) string {
	names := []string{"a", "b", "d", "d/e", "d/f", "d/g", "x", "x/y", "z", "d/x"}
	one, other := names[r.IntN(len(names))], names[r.IntN(len(names))]
	p, q := filepath.Join(dir, one), filepath.Join(dir, other)
	content := bytes.Repeat([]byte{byte(r.IntN(256))}, 1+r.IntN(200<<10))
	off := r.Int64N(400 << 10)
	flags := []int{os.O_WRONLY, os.O_RDWR, os.O_WRONLY | os.O_TRUNC, os.O_WRONLY | os.O_APPEND, os.O_RDWR | os.O_CREATE, os.O_WRONLY | os.O_CREATE | os.O_EXCL, os.O_RDWR | os.O_CREATE | os.O_TRUNC}
	flag, mode := flags[r.IntN(len(flags))], fs.FileMode(r.IntN(0o1000))
	seconds := r.Int64N(2e9)
	kind := r.IntN(13)
	var err error
	var seen any
	switch kind {
	case 0, 1:
		var f *os.File
		if f, err = os.OpenFile(p, flag, mode|0o600); err == nil {
			if flag&os.O_APPEND != 0 {
				_, err = f.Write(content)
			} else {
				_, err = f.WriteAt(content, off)
			}
			err = errors.Join(err, f.Close())
		}
	case 2:
		err = os.Truncate(p, off)
	case 3:
		err = os.Mkdir(p, mode|0o700)
	case 4:
		err = unix.Unlink(p)
	case 5:
		err = unix.Rmdir(p)
	case 6:
		err = unix.Renameat2(unix.AT_FDCWD, p, unix.AT_FDCWD, q, uint([]int{0, 0, unix.RENAME_NOREPLACE, unix.RENAME_EXCHANGE}[r.IntN(4)]))
	case 7:
		err = os.Symlink(other, p)
	case 8:
		err = os.Link(p, q)
	case 9:
		err = os.Chmod(p, mode|0o600)
		if info, _ := os.Lstat(p); info != nil && info.IsDir() {
			err = os.Chmod(p, mode|0o700)
		}
	case 10:
		err = os.Chtimes(p, time.Unix(seconds, 5), time.Unix(seconds+1, 7))
		if info, e := os.Stat(p); e == nil {
			seen = info.ModTime()
		}
	case 11:
		seen, err = os.ReadFile(p)
		seen = len(seen.([]byte))
	case 12: // a file that is removed while it is open
		var f *os.File
		if f, err = os.OpenFile(p, os.O_RDWR, 0); err == nil {
			_ = unix.Unlink(p)
			_, e := f.WriteAt(content, 5)
			got := make([]byte, 10)
			n, e2 := f.ReadAt(got, 3)
			seen = fmt.Sprint(number(e), got[:n], number(e2))
			f.Close()
		}
	}
	return fmt.Sprintf("%d %s %s %o %o: %v %v", kind, one, other, flag, mode, number(err), seen)
}

// describe lists what is below a folder.
func describe(t *testing.T, dir string) (lines []string) {
	t.Helper()
	if err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := os.Lstat(path)
		if err != nil {
			return err
		}
		stat := info.Sys().(*syscall.Stat_t)
		line := fmt.Sprintf("%s %v %d:%d", strings.TrimPrefix(path, dir), info.Mode(), stat.Uid, stat.Gid)
		switch {
		case info.Mode().IsRegular():
			content, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			line += fmt.Sprintf(" %d links, %d bytes, %x", stat.Nlink, info.Size(), unique(content))
		case info.Mode()&fs.ModeSymlink != 0:
			target, err := os.Readlink(path)
			if err != nil {
				return err
			}
			line += fmt.Sprintf(" -> %s, %d bytes", target, info.Size())
		}
		lines = append(lines, line)
		return nil
	}); err != nil {
		t.Error(err)
	}
	return lines
}

func unique(content []byte) uint64 {
	h := uint64(14695981039346656037)
	for _, c := range content {
		h = (h ^ uint64(c)) * 1099511628211
	}
	return h
}

// A tree that is changed behaves as a local folder, call by call.
func TestChanges(t *testing.T) {
	b := testbucket.Start(t).Bucket(t)
	cache := newCache(t, 8<<20)
	want := map[string][]byte{"a": random(10), "d/e": random(300 << 10), "d/g": nil}
	for seed := range uint64(20) {
		local := t.TempDir()
		if err := errors.Join(os.Mkdir(local+"/d", 0o755), os.Chmod(local, 0o755)); err != nil {
			t.Fatal(err)
		}
		tree := Tree{Files: map[string]File{}, Spool: openRoot(t)}
		for name, content := range want {
			tree.Files[name] = File{Object: cache.Open(b, testbucket.Put(t, b, name, content))}
			if err := os.WriteFile(filepath.Join(local, name), content, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		target, _ := mountTree(t, tree, slog.Default())
		one, other := rand.New(rand.NewPCG(seed, 1)), rand.New(rand.NewPCG(seed, 1))
		var did []string
		for range 150 {
			expected := change(local, one)
			did = append(did, expected)
			if got := change(target, other); got != expected {
				t.Fatalf("seed %d: got\n%s\na local folder\n%s\nafter\n%s", seed, got, expected, strings.Join(did, "\n"))
			}
		}
		if got, expected := describe(t, target), describe(t, local); !slices.Equal(got, expected) {
			t.Errorf("seed %d: got\n%s\na local folder\n%s\nafter\n%s", seed, strings.Join(got, "\n"), strings.Join(expected, "\n"), strings.Join(did, "\n"))
		}
	}
}

// A file that is the root of a mount is copied when it is opened for writing, and not before.
func TestWriteFile(t *testing.T) {
	store := testbucket.Start(t)
	b := store.Bucket(t)
	var requests atomic.Int64
	b = store.Front(t, b, func(_ http.ResponseWriter, r *http.Request) bool {
		if r.Method == http.MethodGet {
			requests.Add(1)
		}
		return false
	})
	content := random(3<<20 + 7)
	info := testbucket.Put(t, b, "key", content)
	cache := newCache(t, 8<<20)
	for name, do := range map[string]func(f string) ([]byte, error){
		"append": func(f string) ([]byte, error) {
			return append(slices.Clone(content), "more"...), exec.Command("sh", "-c", `printf more >>"$0"`, f).Run()
		},
		"write": func(f string) ([]byte, error) {
			return append([]byte("xy"), content[2:]...), exec.Command("sh", "-c", `printf xy | dd of="$0" conv=notrunc status=none`, f).Run()
		},
		"shorten": func(f string) ([]byte, error) { return content[:9], os.Truncate(f, 9) },
		"lengthen": func(f string) ([]byte, error) {
			return append(slices.Clone(content), 0, 0), os.Truncate(f, int64(len(content)+2))
		},
		"fallocate": func(f string) ([]byte, error) {
			return append(slices.Clone(content), 0, 0), exec.Command("fallocate", "-l", fmt.Sprint(len(content)+2), f).Run()
		},
		"overwrite": func(f string) ([]byte, error) { return []byte("new"), os.WriteFile(f, []byte("new"), 0) },
		"empty":     func(f string) ([]byte, error) { return nil, os.Truncate(f, 0) },
		"mode":      func(f string) ([]byte, error) { return content, os.Chmod(f, 0o400) },
	} {
		target, _ := mountFile(t, File{Object: cache.Open(b, info), Spool: openRoot(t)}, slog.Default())
		requests.Store(0)
		want, err := do(target)
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		asked := requests.Load()
		if none := name == "overwrite" || name == "empty" || name == "mode"; none && asked > 0 {
			t.Errorf("%s: %d requests", name, asked)
		}
		if got, err := os.ReadFile(target); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: read %d bytes, want %d: %v", name, len(got), len(want), err)
		}
		if found, err := os.Stat(target); err != nil || found.Size() != int64(len(want)) {
			t.Errorf("%s: %v, %v", name, found, err)
		}
	}
}

// A program that waits for a copy can be killed, and a copy that fails is an error.
func TestCopyFails(t *testing.T) {
	store := testbucket.Start(t)
	b := store.Bucket(t)
	info := testbucket.Put(t, b, "key", random(1<<20))
	asked, gate := make(chan struct{}, 100), make(chan struct{})
	b = store.Front(t, b, func(w http.ResponseWriter, r *http.Request) bool {
		asked <- struct{}{}
		<-gate
		w.WriteHeader(http.StatusForbidden)
		return true
	})
	target, _ := mountFile(t, File{Object: newCache(t, 8<<20).Open(b, info), Spool: openRoot(t)}, slog.New(slog.DiscardHandler))
	cmd := exec.Command("sh", "-c", `exec 3>>"$0"`, target)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	<-asked
	begin := time.Now()
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	if took := time.Since(begin); took > 2*time.Second {
		t.Errorf("took %v", took)
	}
	close(gate)
	if f, err := os.OpenFile(target, os.O_RDWR, 0); !errors.Is(err, unix.EIO) {
		f.Close()
		t.Error(err)
	}
}

// A tree without a folder for copies cannot be changed.
func TestReadOnly(t *testing.T) {
	target, _ := mountTree(t, Tree{Files: map[string]File{"a": {}, "d/b": {}}}, slog.Default())
	for name, err := range map[string]error{
		"create": os.WriteFile(target+"/x", nil, 0o600), "write": os.WriteFile(target+"/a", nil, 0o600), "mkdir": os.Mkdir(target+"/y", 0o700),
		"unlink": unix.Unlink(target + "/a"), "rmdir": unix.Rmdir(target + "/d"), "rename": os.Rename(target+"/a", target+"/z"),
		"symlink": os.Symlink("a", target+"/l"), "link": os.Link(target+"/a", target+"/h"), "chmod": os.Chmod(target+"/a", 0o600),
		"truncate": os.Truncate(target+"/a", 0), "chtimes": os.Chtimes(target+"/a", time.Now(), time.Now()), "mkfifo": unix.Mkfifo(target+"/p", 0o600),
	} {
		if !errors.Is(err, unix.EROFS) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

package digests

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/wasmshim/containerd-shim-wasm/internal/repo"
)

// counted is a memory that counts its hashes, at a time when every file of the test has settled.
type counted struct {
	*Memory
	hashed int
}

func remember(t *testing.T, dir string) *counted {
	t.Helper()
	m, err := Open(filepath.Join(dir, "digests"))
	if err != nil {
		t.Fatal(err)
	}
	c := &counted{Memory: m}
	m.hash = func(r io.Reader) (string, error) {
		c.hashed++
		return sum(r)
	}
	m.now = func() time.Time { return time.Now().Add(time.Minute) }
	return c
}

// is fails the test unless the file's digest is that of text, found by so many hashes
// since the memory was opened.
func (c *counted) is(t *testing.T, file *os.File, text string, hashed int) {
	t.Helper()
	want, err := sum(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := c.Digest(t.Context(), file, true); err != nil || got != want || c.hashed != hashed {
		t.Fatalf("got %s, %v after %d hashes, want %s after %d", got, err, c.hashed, want, hashed)
	}
}

// disk is a folder on a file system whose files are remembered.
func disk(t *testing.T) string {
	t.Helper()
	checkout, err := repo.Cache("tests")
	if err != nil {
		t.Fatal(err)
	}
	for _, parent := range []string{os.TempDir(), checkout, "/var/tmp"} {
		dir, err := os.MkdirTemp(parent, "digests-")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { os.RemoveAll(dir) })
		if _, err := identify(newFile(t, dir, "")); err == nil {
			return dir
		}
	}
	t.Fatal("neither the temporary folders nor the checkout lie on ext4 or xfs")
	return ""
}

func newFile(t *testing.T, dir, text string) *os.File {
	t.Helper()
	file, err := os.CreateTemp(dir, "*.wasm")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { file.Close() })
	if _, err := file.WriteString(text); err != nil {
		t.Fatal(err)
	}
	return file
}

func TestHashesOnce(t *testing.T) {
	dir := disk(t)
	file := newFile(t, dir, "content")
	m := remember(t, dir)
	m.is(t, file, "content", 1)
	m.is(t, file, "content", 1)
	remember(t, dir).is(t, file, "content", 0)
	m.is(t, newFile(t, dir, "content"), "content", 2)
}

// A file that was just changed may change again without a new time.
func TestYoungFileIsNotRemembered(t *testing.T) {
	dir := disk(t)
	m := remember(t, dir)
	m.now = time.Now
	file := newFile(t, dir, "content")
	m.is(t, file, "content", 1)
	m.is(t, file, "content", 2)
	m.now = func() time.Time { return time.Now().Add(-time.Hour) } // a clock that was set back
	m.is(t, file, "content", 3)
	m.is(t, file, "content", 4)
}

// A writer of a file can restore its size and its time of modification.
func TestChangeInPlace(t *testing.T) {
	dir := disk(t)
	file := newFile(t, dir, "content")
	m := remember(t, dir)
	m.is(t, file, "content", 1)
	before, err := identify(file)
	if err != nil {
		t.Fatal(err)
	}
	tick(t, dir, file)
	if _, err := file.WriteAt([]byte("CONTENT"), 0); err != nil {
		t.Fatal(err)
	}
	modified := time.Unix(0, before.Modified)
	if err := os.Chtimes(file.Name(), modified, modified); err != nil {
		t.Fatal(err)
	}
	if after, err := identify(file); err != nil || after.Modified != before.Modified || after.Size != before.Size {
		t.Fatalf("%+v became %+v, %v", before, after, err)
	}
	m.is(t, file, "CONTENT", 2)
}

// A page that is mapped and dirty takes further writes without a new time.
func TestChangeByMapping(t *testing.T) {
	dir := disk(t)
	file := newFile(t, dir, "content")
	mapped, err := unix.Mmap(int(file.Fd()), 0, len("content"), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Munmap(mapped)
	copy(mapped, "mapped1")
	tick(t, dir, file)
	m := remember(t, dir)
	m.is(t, file, "mapped1", 1)
	copy(mapped, "mapped2")
	m.is(t, file, "mapped2", 2)
}

// tick returns when a change of file would get another time than the last one.
func tick(t *testing.T, dir string, file *os.File) {
	t.Helper()
	last, err := identify(file)
	if err != nil {
		t.Fatal(err)
	}
	for {
		now, err := identify(newFile(t, dir, "now"))
		if err != nil {
			t.Fatal(err)
		}
		if now.Changed > last.Changed {
			return
		}
	}
}

func TestMemoryFilesAreNotRemembered(t *testing.T) {
	fd, err := unix.MemfdCreate("app.wasm", unix.MFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	file := os.NewFile(uintptr(fd), "app.wasm")
	defer file.Close()
	if _, err := file.WriteString("content"); err != nil {
		t.Fatal(err)
	}
	m := remember(t, disk(t))
	m.is(t, file, "content", 1)
	m.is(t, file, "content", 2)
}

// A foreign file system may hold any times, the node's own may not.
func TestVolumeOfItsOwnIsNotRemembered(t *testing.T) {
	dir := disk(t)
	file := newFile(t, dir, "content")
	m := remember(t, dir)
	for hashed, foreign := range map[int]bool{1: false, 3: true} {
		m.hashed = 0
		if foreign {
			m.device++
		} else if err := os.RemoveAll(m.dir); err != nil || os.Mkdir(m.dir, 0o700) != nil {
			t.Fatal(err)
		}
		for range 3 {
			if _, err := m.Digest(t.Context(), file, false); err != nil {
				t.Fatal(err)
			}
		}
		if m.hashed != hashed {
			t.Errorf("on another device %t: hashed %d times, want %d", foreign, m.hashed, hashed)
		}
		if foreign {
			m.device--
		}
	}
}

// A file that is not exactly a record that we have written is ignored.
func TestTamperedRecords(t *testing.T) {
	other := strings.Repeat("0", 64)
	for name, tamper := range map[string]func(t *testing.T, path string, id identity) error{
		"garbage":   func(_ *testing.T, path string, _ identity) error { return os.WriteFile(path, []byte("{"), 0o600) },
		"empty":     func(_ *testing.T, path string, _ identity) error { return os.Truncate(path, 0) },
		"large":     func(_ *testing.T, path string, _ identity) error { return os.Truncate(path, 1<<20) },
		"writable":  func(_ *testing.T, path string, _ identity) error { return os.Chmod(path, 0o666) },
		"owner":     func(_ *testing.T, path string, _ identity) error { return os.Chown(path, 65534, -1) },
		"no digest": func(t *testing.T, path string, id identity) error { return write(t, path, record{id, "00"}) },
		"other file": func(t *testing.T, path string, id identity) error {
			id.Inode++
			return write(t, path, record{id, other})
		},
		"folder": func(_ *testing.T, path string, _ identity) error {
			return errors.Join(os.Remove(path), os.Mkdir(path, 0o700))
		},
		"fifo": func(_ *testing.T, path string, _ identity) error {
			return errors.Join(os.Remove(path), unix.Mkfifo(path, 0o600))
		},
		"link": func(t *testing.T, path string, id identity) error {
			elsewhere := path + ".elsewhere"
			return errors.Join(write(t, elsewhere, record{id, other}), os.Remove(path), os.Symlink(elsewhere, path))
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := disk(t)
			file := newFile(t, dir, "content")
			m := remember(t, dir)
			m.is(t, file, "content", 1)
			id, err := identify(file)
			if err != nil {
				t.Fatal(err)
			}
			if err := tamper(t, m.path(id), id); err != nil {
				t.Fatal(err)
			}
			m.is(t, file, "content", 2)
		})
	}
}

func write(t *testing.T, path string, r record) error {
	t.Helper()
	data, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	return os.WriteFile(path, data, 0o600)
}

// A folder that others can write is not used, and everything works without it.
func TestOpenRefusesForeignFolder(t *testing.T) {
	dir := disk(t)
	file := newFile(t, dir, "content")
	boot := remember(t, dir).dir
	for _, folder := range []string{boot, filepath.Dir(boot), dir} {
		if err := os.Chmod(folder, 0o777); err != nil {
			t.Fatal(err)
		}
		m, err := Open(filepath.Join(dir, "digests"))
		if err == nil || !strings.Contains(err.Error(), folder+" must be a folder that only its owner") {
			t.Errorf("got %v", err)
		}
		m.now = func() time.Time { return time.Now().Add(time.Minute) }
		if _, err := m.Digest(t.Context(), file, true); err != nil {
			t.Error(err)
		}
		if found, err := os.ReadDir(boot); err != nil || len(found) > 0 {
			t.Errorf("it holds %v, %v", found, err)
		}
		if err := os.Chmod(folder, 0o700); err != nil {
			t.Fatal(err)
		}
	}
}

func TestMemoryIsBounded(t *testing.T) {
	dir := disk(t)
	m := remember(t, dir)
	for i := range mostRecords {
		if err := os.WriteFile(filepath.Join(m.dir, fmt.Sprint(i)), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	file := newFile(t, dir, "content")
	m.is(t, file, "content", 1)
	m.is(t, file, "content", 1)
	found, err := os.ReadDir(m.dir)
	if err != nil || len(found) != mostRecords/2+1 {
		t.Errorf("%d records are left, %v", len(found), err)
	}
}

// After a reboot a device's number may be another's.
func TestEarlierBootIsForgotten(t *testing.T) {
	dir := disk(t)
	earlier := filepath.Join(dir, "digests", "earlier")
	if err := os.MkdirAll(earlier, 0o700); err != nil {
		t.Fatal(err)
	}
	m := remember(t, dir)
	if _, err := os.Stat(earlier); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v", err)
	}
	if _, err := os.Stat(m.dir); err != nil {
		t.Error(err)
	}
}

func TestVerify(t *testing.T) {
	dir := disk(t)
	blob := newFile(t, dir, "content")
	good, err := sum(strings.NewReader("content"))
	if err != nil {
		t.Fatal(err)
	}
	m := remember(t, dir)
	for range 2 {
		if err := m.Verify(t.Context(), blob, good); err != nil {
			t.Error(err)
		}
	}
	if m.hashed != 1 {
		t.Errorf("hashed %d times", m.hashed)
	}
	bad := strings.Repeat("0", 64)
	err = m.Verify(t.Context(), blob, bad)
	want := fmt.Sprintf("%s: its content is sha256:%s, not sha256:%s: remove the image and pull it again", blob.Name(), good, bad)
	if !errors.Is(err, errDamaged) || !strings.HasSuffix(err.Error(), want) {
		t.Errorf("got %v", err)
	}
}

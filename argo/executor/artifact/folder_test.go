package artifact

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// Walk visits what filepath.Walk visits, in its order.
func TestWalk(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"b/c/d", "b.txt", "a", "b/a", "z/y/x"} {
		if err := errors.Join(os.MkdirAll(filepath.Dir(dir+"/"+name), 0o755), os.WriteFile(dir+"/"+name, []byte(name), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(os.Symlink("b", dir+"/link"), unix.Mkfifo(dir+"/fifo", 0o666), os.Mkdir(dir+"/empty", 0o755)); err != nil {
		t.Fatal(err)
	}
	var want []string
	if err := filepath.Walk(dir, func(name string, _ os.FileInfo, err error) error {
		if rel, _ := filepath.Rel(dir, name); rel != "." {
			want = append(want, rel)
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	folder, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer folder.Close()
	for range 2 { // it may be walked again
		var got []string
		if err := Walk(folder, func(e Entry) error {
			got = append(got, e.Name)
			if !e.Mode.IsRegular() {
				return nil
			}
			f, err := e.Open()
			if err != nil {
				return err
			}
			defer f.Close()
			if text, err := io.ReadAll(f); string(text) != e.Name || err != nil {
				t.Errorf("%s: got %q, %v", e.Name, text, err)
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

// What is exchanged for a link or a FIFO after it has been listed is not opened, and nothing outside is read.
func TestWalkWhileLinksAreSwapped(t *testing.T) {
	outside := t.TempDir()
	if err := errors.Join(os.Mkdir(outside+"/d", 0o755), os.WriteFile(outside+"/d/file", []byte("secret"), 0o644), os.WriteFile(outside+"/file", []byte("secret"), 0o644)); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := errors.Join(os.MkdirAll(dir+"/in/d", 0o755), os.WriteFile(dir+"/in/d/file", nil, 0o644), os.WriteFile(dir+"/in/file", nil, 0o644),
		os.Symlink(outside+"/d", dir+"/d"), os.Symlink(outside+"/file", dir+"/file"), unix.Mkfifo(dir+"/fifo", 0o666)); err != nil {
		t.Fatal(err)
	}
	folder, err := os.Open(dir + "/in")
	if err != nil {
		t.Fatal(err)
	}
	defer folder.Close()
	stop, stopped := make(chan struct{}), make(chan struct{})
	defer func() { close(stop); <-stopped }()
	go func() {
		defer close(stopped)
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			with := [][2]string{{"d", "d"}, {"file", "file"}, {"fifo", "file"}}[i%3]
			_ = unix.Renameat2(unix.AT_FDCWD, dir+"/"+with[0], unix.AT_FDCWD, dir+"/in/"+with[1], unix.RENAME_EXCHANGE)
		}
	}()
	for range 2000 {
		_ = Walk(folder, func(e Entry) error {
			if e.Mode.IsDir() {
				return nil
			}
			f, err := e.Open()
			if err != nil {
				return nil //nolint:nilerr // it is a link by now
			}
			defer f.Close()
			if text, err := io.ReadAll(f); len(text) > 0 || err != nil {
				t.Errorf("%s: got %q, %v", e.Name, text, err)
			}
			return nil
		})
	}
}

// Folders that are nested deeper than a path can be are an error, and take no more than some memory.
func TestWalkDeepFolders(t *testing.T) {
	top := t.TempDir()
	at, err := unix.Open(top, unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	name := strings.Repeat("d", 200)
	for range 30 {
		if err := unix.Mkdirat(at, name, 0o755); err != nil {
			t.Fatal(err)
		}
		next, err := unix.Openat(at, name, unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		unix.Close(at)
		at = next
	}
	unix.Close(at)
	folder, err := os.Open(top)
	if err != nil {
		t.Fatal(err)
	}
	defer folder.Close()
	if err := Walk(folder, func(Entry) error { return nil }); !errors.Is(err, unix.ENAMETOOLONG) {
		t.Errorf("got %v", err)
	}
}

package sandbox

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// imageOf makes a folder with links, path to target. It returns the folder's path and a descriptor of it.
func imageOf(t testing.TB, links map[string]string) (string, int) {
	t.Helper()
	dir := t.TempDir()
	for path, target := range links {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, path)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(target, filepath.Join(dir, path)); err != nil {
			t.Fatal(err)
		}
	}
	root, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(root) })
	return dir, root
}

func TestExpand(t *testing.T) {
	_, root := imageOf(t, map[string]string{"run": "/var/run", "var/run": "../gone/run", "up": "../../..", "self": "self", "missing": "x/../y"})
	for path, want := range map[string]string{
		"/":             "",
		"/a/./b//c":     "a/b/c",
		"/a/../b":       "b",
		"/../../b":      "b",
		"/run/x":        "gone/run/x",
		"/up/etc":       "etc",
		"/missing":      "y",
		"/missing/../z": "z",
	} {
		names, err := expand(root, path)
		if got := strings.Join(names, "/"); err != nil || got != want {
			t.Errorf("%s leads to %q, %v, want %q", path, got, err, want)
		}
	}
	if _, err := expand(root, "/self"); err != unix.ELOOP {
		t.Errorf("a link to itself: %v", err)
	}
}

// While another process exchanges folders and links, mount points are made below the root or not at all.
func TestMountpointsInMotion(t *testing.T) {
	outside := t.TempDir()
	for name, target := range map[string]string{"absolute": outside, "relative": strings.Repeat("../", 20) + strings.TrimPrefix(outside, "/"), "dangling": outside + "/new"} {
		dir, root := imageOf(t, map[string]string{"link": target})
		if err := os.Mkdir(filepath.Join(dir, "a"), 0o755); err != nil {
			t.Fatal(err)
		}
		stop, stopped := make(chan struct{}), make(chan struct{})
		go func() {
			defer close(stopped)
			for {
				select {
				case <-stop:
					return
				default:
					_ = unix.Renameat2(root, "a", root, "link", unix.RENAME_EXCHANGE)
				}
			}
		}()
		made := 0
		for i := range 300 {
			fd, _, err := mountpoint(root, "/a/b/c", i%2 == 0)
			if err != nil {
				continue // a folder was exchanged meanwhile
			}
			made++
			if path, err := os.Readlink(descriptorPath(fd)); err != nil || !strings.HasPrefix(path, dir+"/") {
				t.Errorf("%s: made %s, %v", name, path, err)
			}
			unix.Close(fd)
			for _, at := range []string{"a/b", "link/b", outside[1:]} {
				removeBelow(t, dir, at)
			}
		}
		close(stop)
		<-stopped
		if made == 0 {
			t.Errorf("%s: nothing was made", name)
		}
		if got := names(t, outside); len(got) > 0 {
			t.Errorf("%s: outside of the root there is %q", name, got)
		}
	}
}

// removeBelow removes a path below a folder, and follows no link.
func removeBelow(t *testing.T, dir, path string) {
	t.Helper()
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	_ = root.RemoveAll(path) // fails at a link that leads out of the folder, ignores a missing file
}

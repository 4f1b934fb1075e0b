package sandbox

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// image is a container's root file system with two image layers, mounted in a sandbox.
type image struct {
	*Sandbox
	upper, middle, lower string
	rootfs               []Mount
}

func newImage(t *testing.T, options ...string) *image {
	t.Helper()
	dir := t.TempDir()
	i := &image{upper: filepath.Join(dir, "upper"), middle: filepath.Join(dir, "middle"), lower: filepath.Join(dir, "lower")}
	for _, folder := range []string{i.upper, filepath.Join(dir, "work"), i.middle, filepath.Join(i.lower, "usr", "bin")} {
		if err := os.MkdirAll(folder, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, path := range []string{i.lower + "/app.wasm", i.lower + "/usr/bin/tool.wasm", i.lower + "/twice.wasm", i.middle + "/twice.wasm"} {
		if err := os.WriteFile(path, []byte("module"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("usr/bin", i.lower+"/bin"); err != nil {
		t.Fatal(err)
	}
	i.rootfs = []Mount{{Type: "overlay", Source: "overlay", Options: append([]string{
		"workdir=" + filepath.Join(dir, "work"), "upperdir=" + i.upper, "lowerdir=" + i.middle + ":" + i.lower,
	}, options...)}}
	var err error
	if i.Sandbox, err = New(t.TempDir(), ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { i.Close() })
	if err := i.MountRootfs(i.rootfs, nil, ""); err != nil {
		t.Fatal(err)
	}
	return i
}

// inside returns the path at which the test can open a path of the container.
func (i *image) inside(path string) string { return descriptorPath(i.root) + path }

// stored returns the inode number of the layer's file for path, 0 for none.
func (i *image) stored(t *testing.T, path string) uint64 {
	t.Helper()
	file, err := i.OpenFile(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	stored, ok := i.Stored(file, i.rootfs)
	if !ok {
		return 0
	}
	defer stored.Close()
	if stored.Name() != path {
		t.Errorf("%s is called %s", path, stored.Name())
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(stored.Fd()), &st); err != nil {
		t.Fatal(err)
	}
	if layer := status(t, i.lower); st.Dev != layer.Dev {
		t.Errorf("%s lies on device %d, the layers on %d", path, st.Dev, layer.Dev)
	}
	return st.Ino
}

func status(t *testing.T, path string) unix.Stat_t {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		t.Fatal(err)
	}
	return st
}

func TestStoredFindsTheLayersFile(t *testing.T) {
	i := newImage(t)
	for path, want := range map[string]string{
		"/app.wasm":          i.lower + "/app.wasm",
		"/usr/bin/tool.wasm": i.lower + "/usr/bin/tool.wasm",
		"/bin/tool.wasm":     i.lower + "/usr/bin/tool.wasm",
		"/twice.wasm":        i.middle + "/twice.wasm",
	} {
		if got := i.stored(t, path); got != status(t, want).Ino {
			t.Errorf("%s: got inode %d, want that of %s", path, got, want)
		}
	}
}

// A layer may have a file's metadata without its data (metacopy).
func TestStoredLeavesFilesWithoutData(t *testing.T) {
	i := newImage(t, "metacopy=on")
	if i.stored(t, "/twice.wasm") == 0 {
		t.Error("a whole file was not found in its layer")
	}
	if err := unix.Setxattr(i.middle+"/twice.wasm", "trusted.overlay.metacopy", nil, 0); err != nil {
		t.Fatal(err)
	}
	if i.stored(t, "/twice.wasm") != 0 {
		t.Error("a file whose data lie elsewhere was taken from its layer")
	}
}

// A file that the container has written keeps its inode number. The container can restore its size and its time too.
func TestStoredLeavesWhatTheContainerWrote(t *testing.T) {
	i := newImage(t)
	before := status(t, i.inside("/app.wasm"))
	for path, text := range map[string]string{"/app.wasm": "MODULE", "/new.wasm": "module"} {
		if err := os.WriteFile(i.inside(path), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	times := []unix.Timespec{before.Atim, before.Mtim}
	if err := unix.UtimesNanoAt(unix.AT_FDCWD, i.inside("/app.wasm"), times, 0); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(i.inside("/usr/bin/tool.wasm"), i.inside("/twice.wasm")); err != nil {
		t.Fatal(err)
	}
	after := status(t, i.inside("/app.wasm"))
	if after.Ino != before.Ino || after.Dev != before.Dev || after.Size != before.Size || after.Mtim != before.Mtim {
		t.Errorf("overlay tells a copy apart: %+v became %+v", before, after)
	}
	for _, path := range []string{"/app.wasm", "/new.wasm", "/twice.wasm"} {
		if i.stored(t, path) != 0 {
			t.Errorf("%s was taken from a layer", path)
		}
	}
	if status(t, i.upper+"/app.wasm").Size != before.Size {
		t.Error("the container has no copy")
	}
}

// A file of a volume is not a layer's file, even if a layer has a file with that name.
func TestStoredLeavesVolumes(t *testing.T) {
	i := newImage(t)
	volume := filepath.Join(t.TempDir(), "app.wasm")
	if err := os.WriteFile(volume, []byte("module"), 0o644); err != nil {
		t.Fatal(err)
	}
	spec := &specs.Spec{Linux: &specs.Linux{}, Mounts: []specs.Mount{
		{Destination: "/app.wasm", Type: "bind", Source: volume, Options: []string{"bind"}},
		{Destination: "/twice.wasm", Type: "bind", Source: i.lower + "/twice.wasm", Options: []string{"bind"}},
	}}
	if err := i.MountAll(spec); err != nil {
		t.Fatal(err)
	}
	for _, mount := range spec.Mounts {
		if i.stored(t, mount.Destination) != 0 {
			t.Errorf("%s was taken from a layer", mount.Destination)
		}
	}
}

func TestStoredNeedsOneOverlay(t *testing.T) {
	i := newImage(t)
	good := i.rootfs[0].Options
	for name, rootfs := range map[string][]Mount{
		"nothing":    nil,
		"bind":       {{Type: "bind", Source: i.lower}},
		"two":        {i.rootfs[0], i.rootfs[0]},
		"below":      {{Type: "overlay", Target: "/usr", Options: good}},
		"relative":   {{Type: "overlay", Options: []string{"lowerdir=middle:" + i.lower}}},
		"data layer": {{Type: "overlay", Options: []string{"lowerdir=" + i.middle + "::" + i.lower}}},
		"colon":      {{Type: "overlay", Options: []string{`lowerdir=/a\:b:` + i.lower}}},
		"no layers":  {{Type: "overlay", Options: []string{"upperdir=" + i.lower}}},
	} {
		i.rootfs = rootfs
		if i.stored(t, "/app.wasm") != 0 {
			t.Errorf("%s: %s", name, fmt.Sprint(rootfs))
		}
	}
	i.rootfs = []Mount{{Type: "overlay", Options: []string{strings.Join(good[2:3], "")}}}
	if i.stored(t, "/app.wasm") == 0 {
		t.Error("an image without a container's layer has no layers")
	}
}

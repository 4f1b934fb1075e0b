package sandbox

import (
	"io"
	"os"
	"path/filepath"
	"slices"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// overlayOf makes the folders of a container's overlay, with a file in each, and returns its mount.
func overlayOf(t *testing.T, options ...string) (Mount, string) {
	t.Helper()
	dir := t.TempDir()
	for name, text := range map[string]string{"lower/image": "image", "lower/changed": "image", "upper/changed": "container", "upper/own": "container"} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(dir, "work"), 0o755); err != nil {
		t.Fatal(err)
	}
	options = append(options, "lowerdir="+filepath.Join(dir, "lower"), "upperdir="+filepath.Join(dir, "upper"), "workdir="+filepath.Join(dir, "work"))
	return Mount{Type: "overlay", Source: "overlay", Options: options}, dir
}

func names(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, e := range entries {
		all = append(all, e.Name())
	}
	return all
}

func wantFile(t *testing.T, s *Sandbox, path, want string) {
	t.Helper()
	file, err := s.OpenFile(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if text, err := io.ReadAll(file); err != nil || string(text) != want {
		t.Errorf("%s holds %q, %v, want %q", path, text, err, want)
	}
}

// A view shows the files that the container will have, with the container's own changes. The view's mounts
// change nothing in the container's layer.
func TestViewLeavesNoTrace(t *testing.T) {
	volume := t.TempDir()
	if err := os.WriteFile(filepath.Join(volume, "file"), []byte("volume"), 0o644); err != nil {
		t.Fatal(err)
	}
	spec := &specs.Spec{
		Mounts: []specs.Mount{{Destination: "/no/such/folder", Type: "bind", Source: volume, Options: []string{"rbind", "ro"}}},
		Linux:  &specs.Linux{},
	}
	m, dir := overlayOf(t, "volatile", "index=off")
	for range 2 {
		s, err := New(t.TempDir(), "")
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		if err := s.ViewRootfs([]Mount{m}, nil, ""); err != nil {
			t.Fatal(err)
		}
		wantFile(t, s, "/image", "image")
		wantFile(t, s, "/changed", "container")
		wantFile(t, s, "/own", "container")
		if err := s.MountAll(spec); err != nil {
			t.Fatal(err)
		}
		wantFile(t, s, "/no/such/folder/file", "volume")
	}
	if got := names(t, filepath.Join(dir, "upper")); !slices.Equal(got, []string{"changed", "own"}) {
		t.Errorf("the container's own folder holds %q", got)
	}
	if got := names(t, filepath.Join(dir, "work")); len(got) != 0 {
		t.Errorf("overlay's work folder holds %q", got)
	}
}

// MountRootfs after a view mounts the root file system itself: writes to it stay, and all mounts of the view are
// gone.
func TestViewGivesWay(t *testing.T) {
	tree := buildTestdata(t, "tree")
	volume := t.TempDir()
	for _, used := range []bool{false, true} {
		m, dir := overlayOf(t)
		spec := &specs.Spec{
			Process: &specs.Process{Args: []string{"tree"}, Cwd: "/"},
			Mounts:  []specs.Mount{{Destination: "/v", Type: "bind", Source: volume, Options: []string{"rbind", "ro"}}},
			Linux:   &specs.Linux{Namespaces: []specs.LinuxNamespace{{Type: specs.MountNamespace}, {Type: specs.PIDNamespace}}},
		}
		s, err := New(t.TempDir(), "")
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		if err := s.ViewRootfs([]Mount{m}, nil, ""); err != nil {
			t.Fatal(err)
		}
		if used {
			if err := s.MountAll(spec); err != nil {
				t.Fatal(err)
			}
		}
		if err := s.MountRootfs([]Mount{m}, nil, ""); err != nil {
			t.Fatal(err)
		}
		text, err := runTree(t, s, tree, "/", spec)
		if err != nil {
			t.Fatal(err)
		}
		if got := topOf(text); !slices.Equal(got, []string{".", "rootfs", "worker"}) {
			t.Errorf("the worker's root holds %q", got)
		}
		if got := names(t, filepath.Join(dir, "upper")); !slices.Equal(got, []string{"changed", "dev", "own", "v"}) {
			t.Errorf("the container's own folder holds %q", got)
		}
	}
}

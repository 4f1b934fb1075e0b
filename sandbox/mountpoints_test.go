package sandbox

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/wasmshim/containerd-shim-wasm/internal/repo"
)

// shape is an image and the mounts in it.
type shape struct {
	links  map[string]string // path in the image → target
	files  []string
	dirs   []string
	mounts []specs.Mount
	cwd    string
	device string
	frozen bool // the root file system is read-only
}

// Sources of mounts: the test replaces folder by a folder with one file, and file by a file.
const folder, file = "FOLDER", "FILE"

func on(destination, source string) []specs.Mount {
	return []specs.Mount{{Destination: destination, Type: "bind", Source: source, Options: []string{"rbind", "ro"}}}
}

func tmpfs(destination string, options ...string) []specs.Mount {
	return []specs.Mount{{Destination: destination, Type: "tmpfs", Source: "tmpfs", Options: options}}
}

func link(path, target string) map[string]string { return map[string]string{path: target} }

var shapes = map[string]shape{
	"folder on nothing":                    {mounts: on("/a/b/c", folder)},
	"file on nothing":                      {mounts: on("/a/b/c", file)},
	"folder on a folder":                   {dirs: []string{"/a"}, mounts: on("/a", folder)},
	"file on a file":                       {files: []string{"/a"}, mounts: on("/a", file)},
	"folder on a file":                     {files: []string{"/a"}, mounts: on("/a", folder)},
	"file on a folder":                     {dirs: []string{"/a"}, mounts: on("/a", file)},
	"folder on a dangling absolute link":   {links: link("/data", "/srv/data"), mounts: on("/data", folder)},
	"file on a dangling absolute link":     {links: link("/data", "/srv/data"), mounts: on("/data", file)},
	"folder on a dangling relative link":   {links: link("/x/data", "../srv/data"), mounts: on("/x/data", folder)},
	"resolv.conf of systemd":               {links: link("/etc/resolv.conf", "../run/systemd/resolve/stub-resolv.conf"), mounts: on("/etc/resolv.conf", file)},
	"through a dangling link":              {links: link("/var/run", "/run"), mounts: on("/var/run/secrets/token", folder)},
	"file through a dangling link":         {links: link("/var/run", "../run"), mounts: on("/var/run/secrets/token", file)},
	"through a link":                       {links: link("/var/run", "/run"), dirs: []string{"/run"}, mounts: on("/var/run/secrets/token", folder)},
	"chain of dangling links":              {links: map[string]string{"/a": "b", "/b": "/c/d", "/c": "e"}, mounts: on("/a/x", folder)},
	"loop":                                 {links: map[string]string{"/a": "b", "/b": "a"}, mounts: on("/a", folder)},
	"below a loop":                         {links: map[string]string{"/a": "b", "/b": "a"}, mounts: on("/a/x", file)},
	"link to itself":                       {links: link("/a", "a"), mounts: on("/a", file)},
	"link out of the root":                 {links: link("/a", "../../../../../../tmp/out"), mounts: on("/a", folder)},
	"link to the root":                     {links: link("/a", "/"), mounts: on("/a", folder)},
	"below a link to the root":             {links: link("/a", "/"), mounts: on("/a/x", folder)},
	"link through what is missing":         {links: link("/a", "missing/../b"), mounts: on("/a", folder)},
	"link through what is missing and up":  {links: link("/a", "missing/../.."), mounts: on("/a/x", folder)},
	"link through what is missing to root": {links: link("/a", "missing/.."), mounts: on("/a", folder)},
	"link with a slash at its end":         {links: link("/a", "/b/"), mounts: on("/a", folder)},
	"empty file link with a slash":         {links: link("/a", "/b/"), mounts: on("/a", file)},
	"link through a file":                  {links: link("/a", "/f/b"), files: []string{"/f"}, mounts: on("/a", folder)},
	"link to a file":                       {links: link("/a", "/f"), files: []string{"/f"}, mounts: on("/a", file)},
	"through a file":                       {files: []string{"/f"}, mounts: on("/f/x", folder)},
	"file through a file":                  {files: []string{"/f"}, mounts: on("/f/x", file)},
	"up":                                   {mounts: on("/x/../y", folder)},
	"up and out":                           {mounts: on("/../../y", folder)},
	"up through a link":                    {links: link("/l", "/a/b"), dirs: []string{"/a/b"}, mounts: on("/l/../y", folder)},
	"slash at the end":                     {mounts: on("/m/", folder)},
	"slash at the end, file":               {mounts: on("/m/", file)},
	"slashes and dots":                     {mounts: on("//a/./b//c/.", folder)},
	"relative":                             {mounts: on("a/b", folder)},
	"the root":                             {mounts: on("/", folder)},
	"read-only":                            {frozen: true, mounts: on("/a/b", file)},
	"read-only behind a link":              {frozen: true, links: link("/a", "/b"), mounts: on("/a", folder)},
	"mount in a mount":                     {mounts: append(tmpfs("/t", "mode=0755"), on("/t/a/b", folder)...)},
	"link into a mount":                    {links: link("/a", "/t/b"), mounts: append(tmpfs("/t", "mode=0755"), on("/a", folder)...)},
	"tmpfs on a folder of another mode":    {dirs: []string{"/a"}, mounts: tmpfs("/a")},
	"tmpfs with a mode of its own":         {dirs: []string{"/a"}, mounts: tmpfs("/a", "mode=0700")},
	"tmpfs on nothing":                     {mounts: tmpfs("/a/b", "mode=0711")},
	"tmpfs on a dangling link":             {links: link("/a", "/b/c"), mounts: tmpfs("/a", "mode=0711")},
	"sysfs on a link":                      {links: link("/sys", "/b"), dirs: []string{"/b"}, mounts: []specs.Mount{{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: []string{"ro"}}}},
	"proc on a link":                       {links: link("/proc", "/b"), mounts: []specs.Mount{{Destination: "/proc", Type: "proc", Source: "proc"}}},
	"cpuinfo":                              {mounts: procAnd(on("/proc/cpuinfo", file))},
	"uptime through a link":                {links: link("/up", "/proc"), mounts: procAnd(on("/up/uptime", file))},
	"last pid":                             {mounts: procAnd(on("/proc/sys/kernel/ns_last_pid", file))},
	"another file in proc":                 {mounts: procAnd(on("/proc/version", file))},
	"a folder in proc":                     {mounts: procAnd(on("/proc/tty", folder))},
	"a link into proc":                     {links: link("/v", "/proc/version"), mounts: procAnd(on("/v", file))},
	"a volume on proc":                     {mounts: on("/proc", folder)},
	"directory":                            {cwd: "/a/b", mounts: on("/v", folder)},
	"dev is a volume":                      {mounts: on("/dev", folder)},
	"directory behind a link":              {links: link("/a", "/b"), dirs: []string{"/b"}, cwd: "/a/x", mounts: on("/v", folder)},
	"device":                               {device: "/x/y/null"},
	"device behind a dangling link":        {links: link("/x", "/y/z"), device: "/x/null"},
	"device on a dangling link":            {links: link("/x/null", "/y/z"), dirs: []string{"/y"}, device: "/x/null"},
	"device that is there":                 {files: []string{"/x"}, device: "/x"},
}

func procAnd(mounts []specs.Mount) []specs.Mount {
	return append([]specs.Mount{{Destination: "/proc", Type: "proc", Source: "proc"}}, mounts...)
}

// build makes the image and the sources below dir, with the program at /tree, and returns the specification.
func (s shape) build(t *testing.T, dir, tree string) *specs.Spec {
	t.Helper()
	root := filepath.Join(dir, "root")
	put := func(path string) {
		t.Helper()
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte("text"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	put(filepath.Join(dir, folder, "inside"))
	put(filepath.Join(dir, file))
	for _, at := range append([]string{"/dev"}, s.dirs...) {
		if err := os.MkdirAll(filepath.Join(root, at), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, at := range s.files {
		put(filepath.Join(root, at))
	}
	for at, target := range s.links {
		if err := os.MkdirAll(filepath.Join(root, filepath.Dir(at)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(target, filepath.Join(root, at)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Link(tree, filepath.Join(root, "tree")); err != nil {
		t.Fatal(err)
	}
	spec := &specs.Spec{
		Version: specs.Version,
		Root:    &specs.Root{Path: root, Readonly: s.frozen},
		Process: &specs.Process{Args: []string{"/tree"}, Env: []string{"TREE=/"}, Cwd: "/"},
		Mounts:  append([]specs.Mount(nil), tmpfs("/dev", "mode=0755")...),
		Linux:   &specs.Linux{Namespaces: []specs.LinuxNamespace{{Type: specs.MountNamespace}, {Type: specs.PIDNamespace}}},
	}
	if s.cwd != "" {
		spec.Process.Cwd = s.cwd
	}
	if s.device != "" {
		spec.Linux.Devices = []specs.LinuxDevice{charDevice(s.device, 1, 3)}
	}
	for _, m := range s.mounts {
		if m.Type == "bind" {
			m.Source = filepath.Join(dir, m.Source)
		}
		spec.Mounts = append(spec.Mounts, m)
	}
	return spec
}

// outcome is the list of files that a program in the container sees, and that of the image afterwards.
type outcome struct{ inside, after string }

func treeOf(t *testing.T, tree, root string) string {
	t.Helper()
	command := exec.Command(tree)
	command.Env = []string{"TREE=" + root}
	text, err := command.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	return string(text)
}

func byRunc(t *testing.T, runc, dir string, spec *specs.Spec) (string, error) {
	t.Helper()
	text, err := json.Marshal(spec)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "config.json"), text, 0o644); err != nil {
		t.Fatal(err)
	}
	command := exec.Command(runc, "--root", filepath.Join(dir, "state"), "run", "--bundle", dir, fmt.Sprintf("mountpoints-%d", os.Getpid()))
	var stderr strings.Builder
	command.Stderr = &stderr
	output, err := command.Output()
	if err != nil {
		err = errors.New(stderr.String())
	}
	return string(output), err
}

func byUs(t *testing.T, tree string, spec *specs.Spec) (string, error) {
	t.Helper()
	s, err := New(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := s.MountRootfs(nil, spec.Root, ""); err != nil {
		t.Fatal(err)
	}
	return runTree(t, s, tree, GuestRoot, spec)
}

// runTree launches testdata/tree as a sandbox's worker, and returns its list of the files below root.
func runTree(t *testing.T, s *Sandbox, tree, root string, spec *specs.Spec) (string, error) {
	t.Helper()
	output, input, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer output.Close()
	child, err := s.Launch(t.Context(), Launch{
		Spec: spec, Process: spec.Process, Worker: open(t, tree), Argv: []string{"tree"}, Env: []string{"TREE=" + root},
		Files: []*os.File{open(t, os.DevNull), input, input},
	})
	input.Close()
	if err != nil {
		return "", err
	}
	text, err := io.ReadAll(output)
	if err != nil {
		t.Fatal(err)
	}
	var status unix.WaitStatus
	if _, err := unix.Wait4(child.PID, &status, 0, nil); err != nil || status.ExitStatus() != 0 {
		return "", fmt.Errorf("it ended with %d, %w: %s", status, err, text)
	}
	return string(text), nil
}

// topOf returns the names of the first level in the output of testdata/tree.
func topOf(text string) []string {
	var all []string
	for line := range strings.Lines(text) {
		if name := strings.Fields(line)[1]; !strings.Contains(name, "/") {
			all = append(all, name)
		}
	}
	return all
}

// Images differ in what they have in place of a mount point, a device or a working directory. A
// container starts here if and only if it starts under runc. Its mounts are at the same places,
// and the image is the same afterwards.
func TestMountpointsAreRuncs(t *testing.T) {
	tools, err := repo.BuildTools(t.Context(), "runc")
	if err != nil {
		t.Fatal(err)
	}
	tree := buildTestdata(t, "tree")
	for name, s := range shapes {
		t.Run(name, func(t *testing.T) {
			theirs, ours := t.TempDir(), t.TempDir()
			theirSpec, ourSpec := s.build(t, theirs, tree), s.build(t, ours, tree)
			var want, got outcome
			var wantErr, gotErr error
			want.inside, wantErr = byRunc(t, filepath.Join(tools[0], "runc"), theirs, theirSpec)
			got.inside, gotErr = byUs(t, tree, ourSpec)
			if (wantErr == nil) != (gotErr == nil) {
				t.Fatalf("runc: %v; here: %v", wantErr, gotErr)
			}
			if wantErr == nil {
				want.after, got.after = treeOf(t, tree, theirSpec.Root.Path), treeOf(t, tree, ourSpec.Root.Path)
			}
			if got != want {
				t.Errorf("inside:\n%s\nwant:\n%s\nafter:\n%s\nwant:\n%s", got.inside, want.inside, got.after, want.after)
			}
		})
	}
}

package test

import (
	"context"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/containerd/v2/pkg/oci"
	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/wasmshim/containerd-shim-wasm/internal/testguest"
	"github.com/wasmshim/containerd-shim-wasm/internal/testimage"
	"github.com/wasmshim/containerd-shim-wasm/internal/testnode"
)

// lookup is one way in which a command resolves to a program.
type lookup struct {
	args []string
	cwd  string
	path string // the variable PATH, "" for the default
}

func (l lookup) spec(volumes map[string]string) []oci.SpecOpts {
	var mounts []specs.Mount
	for _, at := range slices.Sorted(maps.Keys(volumes)) {
		mounts = append(mounts, specs.Mount{Destination: at, Type: "bind", Source: volumes[at], Options: []string{"rbind", "ro"}})
	}
	opts := []oci.SpecOpts{oci.WithMounts(mounts), func(_ context.Context, _ oci.Client, _ *containers.Container, s *specs.Spec) error {
		if l.cwd != "" {
			s.Process.Cwd = l.cwd
		}
		return nil
	}}
	if l.path != "" {
		opts = append(opts, oci.WithEnv([]string{"PATH=" + l.path}))
	}
	return opts
}

// putProgram copies a program to a path on the host.
func putProgram(t *testing.T, program string, path ...string) {
	t.Helper()
	if err := os.Chmod(put(t, onHost(t, program), path...), 0o755); err != nil {
		t.Fatal(err)
	}
}

func putLink(t *testing.T, target string, path ...string) {
	t.Helper()
	at := filepath.Join(path...)
	if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(target, at); err != nil {
		t.Fatal(err)
	}
}

// lookups are the ways in which a command resolves to a program on a volume, by name. The volume at /work holds
// the program as app.wasm, noext and deep/app.wasm. The image has links, and programs of its own that print
// something else.
var lookups = map[string]lookup{
	"absolute":                          {args: []string{"/work/app.wasm"}},
	"not clean":                         {args: []string{"/work/../work/./app.wasm"}},
	"relative":                          {args: []string{"./app.wasm"}, cwd: "/work"},
	"relative, from elsewhere":          {args: []string{"../work/app.wasm"}, cwd: "/own"},
	"without a suffix":                  {args: []string{"./noext"}, cwd: "/work"},
	"in PATH":                           {args: []string{"app.wasm"}, path: "/bin:/work"},
	"in PATH, before the image's":       {args: []string{"app.wasm"}, path: "/work:/own"},
	"a link of the image":               {args: []string{"/link.wasm"}},
	"a relative link of the image":      {args: []string{"/own/link.wasm"}},
	"a linked folder":                   {args: []string{"/folder/app.wasm"}},
	"a link in PATH":                    {args: []string{"link.wasm"}, path: "/own"},
	"a volume on a linked folder":       {args: []string{"/linked/app.wasm"}},
	"a volume on the image's folder":    {args: []string{"/covered/app.wasm"}},
	"a covered folder, by a link":       {args: []string{"/tocovered/app.wasm"}},
	"a volume on the file itself":       {args: []string{"/single.wasm"}},
	"a link of the volume":              {args: []string{"/work/link.wasm"}},
	"a volume in a volume":              {args: []string{"/work/deep/mounted/app.wasm"}},
	"a link through a covered folder":   {args: []string{"/through.wasm"}},
	"a working directory on the volume": {args: []string{"app.wasm"}, cwd: "/work"},
}

// volumesOf makes the volumes for lookups with a program, and returns their host paths by their container
// paths.
func volumesOf(t *testing.T, program string) map[string]string {
	t.Helper()
	dir := t.TempDir()
	work := filepath.Join(dir, "work")
	for _, name := range []string{"app.wasm", "noext", "deep/app.wasm"} {
		putProgram(t, program, work, name)
	}
	putProgram(t, program, dir, "inner", "app.wasm")
	putLink(t, "app.wasm", work, "link.wasm")
	put(t, "", work, "deep", "mounted", ".keep")
	// A folder of the image holds a link to the image's program. The volume that covers it holds a link to the
	// volume's program.
	putLink(t, "/work/app.wasm", dir, "way", "next.wasm")
	return map[string]string{
		"/work": work, "/work/deep/mounted": filepath.Join(dir, "inner"), "/linked": work, "/covered": work,
		"/single.wasm": filepath.Join(work, "app.wasm"), "/way": filepath.Join(dir, "way"),
	}
}

// lookedUpImage is an image whose links lead to volumes, and whose programs print something else than those on
// the volumes.
func lookedUpImage(t *testing.T, ref, other string) string {
	t.Helper()
	return testguest.Image(t, ref, testguest.ImageOpts{
		Files: map[string]string{
			"/own/app.wasm": other, "/covered/app.wasm": other, "/single.wasm": other, "/real/app.wasm": other,
		},
		Links: map[string]string{
			"/link.wasm": "/work/app.wasm", "/own/link.wasm": "../work/app.wasm", "/folder": "work", "/linked": "real",
			"/tocovered": "/covered", "/through.wasm": "/way/next.wasm", "/way/next.wasm": "/own/app.wasm",
		},
		Dirs: []string{"/work/deep/mounted", "/bin"},
	})
}

// expectProgram runs the program that a command resolves to, and checks its output.
func (w way) expectProgram(t *testing.T, node *testnode.Node, l lookup, volumes map[string]string, want string) {
	t.Helper()
	task, err := w.tryCreate(t, node, node.Client(t), l.args, l.spec(volumes)...)
	if err != nil {
		t.Errorf("%s: %v", w.name, err)
		return
	}
	task.start()
	task.expectCode(0)
	if _, err := task.Delete(task.ctx); err != nil { // returns when all output has been copied
		t.Fatal(err)
	}
	if got := task.output.String(); got != want {
		t.Errorf("%s: it printed %q, want %q", w.name, got, want)
	}
}

// An entry point on a volume is found by every path by which runc finds a native program.
func TestEntryPointsOnVolumes(t *testing.T) {
	const wasmRef, nativeRef = "example.com/lookup/wasm:latest", "example.com/lookup/native:latest"
	wasm, native := testguest.Build(t, "hello-c"), testguest.Build(t, "hello-native")
	images := map[string]string{
		wasmRef:   lookedUpImage(t, wasmRef, testguest.Build(t, "hello-rust")),
		nativeRef: lookedUpImage(t, nativeRef, testguest.Build(t, "probe")), // the kernel cannot execute it
	}
	onWasm, onNative := volumesOf(t, wasm), volumesOf(t, native)
	nodes.EachVersion(t, func(t *testing.T, node *testnode.Node) {
		for _, tar := range images {
			node.Import(t, tar)
		}
		node.NoLeaks(t)
		for name, l := range lookups {
			t.Run(name, func(t *testing.T) {
				way{name: "wasm", runtime: runtime, image: wasmRef}.expectProgram(t, node, l, onWasm, greeting)
				if name != "a working directory on the volume" { // only runwasi searches it, for bare names
					way{name: "native", runtime: stock, image: nativeRef}.expectProgram(t, node, l, onNative, "hello from native C\n")
				}
			})
		}
	})
}

// A program on a volume runs, not the image's own Wasm layer.
func TestVolumeBeforeLayer(t *testing.T) {
	const ref = "example.com/lookup/layer:latest"
	format := named(t, "layer-"+strings.ReplaceAll(testimage.Native(), "/", "-"))
	tar := filepath.Join(t.TempDir(), "image.tar")
	if err := format.Build([]byte(onHost(t, testguest.Build(t, "hello-rust")))).WriteTar(tar, ref); err != nil {
		t.Fatal(err)
	}
	volumes := volumesOf(t, testguest.Build(t, "hello-c"))
	nodes.EachVersion(t, func(t *testing.T, node *testnode.Node) {
		node.Import(t, tar)
		node.NoLeaks(t)
		for _, name := range []string{"relative", "without a suffix", "in PATH"} {
			t.Run(name, func(t *testing.T) {
				way{name: "wasm", runtime: runtime, image: ref}.expectProgram(t, node, lookups[name], volumes, greeting)
			})
		}
		// A bare name is not searched in the working directory, because others may write there.
		name := "a working directory on the volume"
		t.Run(name, func(t *testing.T) {
			way{name: "wasm", runtime: runtime, image: ref}.expectProgram(t, node, lookups[name], volumes, "hello from Rust\n")
		})
	})
}

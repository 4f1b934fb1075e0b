package inspect

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/wasmshim/containerd-shim-wasm/entrypoint"
	"github.com/wasmshim/containerd-shim-wasm/internal/testimage"
	"github.com/wasmshim/containerd-shim-wasm/oci"
	"github.com/wasmshim/containerd-shim-wasm/oci/blob"
)

const wasm = "\x00asm\x01\x00\x00\x00"

// lay makes a root file system of layers. Each entry is PATH, PATH->TARGET for a symbolic link or
// PATH=>TARGET for a hard link.
func lay(t *testing.T, layers ...[]string) *files {
	t.Helper()
	f := &files{}
	for n, entries := range layers {
		l := layer{number: n}
		for _, entry := range entries {
			header := &tar.Header{Typeflag: tar.TypeReg, Name: entry}
			if name, target, ok := strings.Cut(entry, "->"); ok {
				header = &tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: target}
			} else if name, target, ok := strings.Cut(entry, "=>"); ok {
				header = &tar.Header{Typeflag: tar.TypeLink, Name: name, Linkname: target}
			}
			if err := l.read(strings.NewReader(wasm), header); err != nil {
				t.Fatal(err)
			}
		}
		if err := f.lay(l); err != nil {
			t.Fatal(err)
		}
	}
	return f
}

func TestLook(t *testing.T) {
	for _, c := range []struct {
		name    string
		layers  [][]string
		command string
		want    string // path, "" for none
	}{
		{"absolute", [][]string{{"app.wasm"}}, "/app.wasm", "/app.wasm"},
		{"not in PATH", [][]string{{"app.wasm"}}, "app.wasm", ""},
		{"in PATH", [][]string{{"usr/bin/app"}}, "app", "/usr/bin/app"},
		{"from the working directory", [][]string{{"work/app.wasm"}}, "./app.wasm", "/work/app.wasm"},
		{"relative link", [][]string{{"lib/app-1.wasm", "lib/app.wasm->app-1.wasm"}}, "/lib/app.wasm", "/lib/app-1.wasm"},
		{"absolute link", [][]string{{"lib/app.wasm", "app->/lib/app.wasm"}}, "/app", "/lib/app.wasm"},
		{"linked folder", [][]string{{"usr/bin/app", "bin->usr/bin"}}, "/bin/app", "/usr/bin/app"},
		{"link to itself", [][]string{{"app->app"}}, "/app", ""},
		{"link out of the root", [][]string{{"app.wasm", "bin/app->../../../app.wasm"}}, "/bin/app", "/app.wasm"},
		{"hard link", [][]string{{"a.wasm", "b.wasm=>a.wasm"}}, "/b.wasm", "/b.wasm"},
		{"removed", [][]string{{"app.wasm"}, {".wh.app.wasm"}}, "/app.wasm", ""},
		{"removed with its folder", [][]string{{"lib/app.wasm"}, {".wh.lib"}}, "/lib/app.wasm", ""},
		{"folder emptied", [][]string{{"lib/app.wasm"}, {"lib/.wh..wh..opq"}}, "/lib/app.wasm", ""},
		{"folder emptied and filled", [][]string{{"lib/app.wasm"}, {"lib/app.wasm", "lib/.wh..wh..opq"}}, "/lib/app.wasm", "/lib/app.wasm"},
		{"removed and back", [][]string{{"app.wasm"}, {".wh.app.wasm"}, {"app.wasm"}}, "/app.wasm", "/app.wasm"},
	} {
		t.Run(c.name, func(t *testing.T) {
			at, found, ok := lay(t, c.layers...).look(entrypoint.Parse(c.command).Paths("/work", nil))
			if ok != (c.want != "") || ok && (at != c.want || found.content != oci.WasmModule) {
				t.Errorf("%s leads to %q (%v, %s), want %q", c.command, at, ok, found.content, c.want)
			}
		})
	}
}

func TestLookUsesTheImagesPath(t *testing.T) {
	f := lay(t, []string{"opt/app"})
	if at, _, ok := f.look(entrypoint.Parse("app").Paths("", []string{"PATH=/bin:/opt"})); !ok || at != "/opt/app" {
		t.Errorf("found %q, %v", at, ok)
	}
}

// blobs is a Source that maps digests to blobs.
type blobs map[digest.Digest][]byte

func (b blobs) Open(_ context.Context, d ocispec.Descriptor) (io.ReadCloser, error) {
	return io.NopCloser(bytes.NewReader(b[d.Digest])), nil
}

// inspect reads the component file that the entry point leads to, whichever entry holds its content.
func TestRunsTheComponentThatIsMeant(t *testing.T) {
	library, command := testimage.Component(nil, nil), testimage.Component(nil, []string{"wasi:cli/run@0.2.3"})
	l := look{source: blobs{}, node: Node{MaxModuleSize: 1 << 20}, unpacking: blob.NewUnpacking(), report: &Image{}}
	for n, layer := range [][]struct {
		header  tar.Header
		content []byte
	}{
		{{tar.Header{Name: "hidden.wasm"}, command}, {tar.Header{Name: "twice.wasm"}, library}, {tar.Header{Name: "./twice.wasm"}, command}, {tar.Header{Name: "lib/hidden.wasm"}, command}},
		{{tar.Header{Name: "hidden.wasm"}, library}, {tar.Header{Name: "hard.wasm", Typeflag: tar.TypeLink, Linkname: "twice.wasm"}, nil},
			{tar.Header{Name: "soft.wasm", Typeflag: tar.TypeSymlink, Linkname: "hard.wasm"}, nil}},
	} {
		var buffer bytes.Buffer
		w := tar.NewWriter(&buffer)
		for _, entry := range layer {
			entry.header.Size, entry.header.Mode = int64(len(entry.content)), 0o644
			if err := w.WriteHeader(&entry.header); err != nil {
				t.Fatal(err)
			}
			if _, err := w.Write(entry.content); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		d := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayer, Digest: digest.FromBytes(buffer.Bytes()), Size: int64(buffer.Len())}
		l.source.(blobs)[d.Digest] = buffer.Bytes()
		l.manifest.Layers = append(l.manifest.Layers, d)
		if _, err := l.layerOfFiles(t.Context(), n, d); err != nil {
			t.Fatal(err)
		}
	}
	for entry, isCommand := range map[string]bool{"/hidden.wasm": false, "/lib/hidden.wasm": true, "/twice.wasm": true, "/hard.wasm": true, "/soft.wasm": true} {
		runs, err := l.runs(t.Context(), entry)
		if (err == nil) != isCommand || isCommand && !strings.Contains(runs, "by its wasi:cli/run@0.2.3") || !isCommand && !strings.Contains(err.Error(), "a library") {
			t.Errorf("%s runs %q, %v", entry, runs, err)
		}
	}
}

// archived makes a layer of files from entries in the form that lay takes, hard links excepted.
func archived(t testing.TB, entries ...string) []byte {
	t.Helper()
	var buffer bytes.Buffer
	w := tar.NewWriter(&buffer)
	for _, entry := range entries {
		header := &tar.Header{Name: entry, Mode: 0o644, Format: tar.FormatPAX}
		if name, target, ok := strings.Cut(entry, "->"); ok {
			header.Typeflag, header.Name, header.Linkname = tar.TypeSymlink, name, target
		}
		if err := w.WriteHeader(header); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buffer.Bytes()
}

// A layer with too many or too long names is refused with an error before it exhausts the machine's memory.
func TestHostileLayersAreRefused(t *testing.T) {
	long := strings.Repeat("x", 900<<10)
	var many []string
	for i := range maxNames/4000 + 2 {
		many = append(many, fmt.Sprintf("%d/", i)+strings.Repeat("y", 4000))
	}
	deep := []string{}
	for i := range maxFiles/2000 + 1 {
		deep = append(deep, fmt.Sprintf("%d", i)+strings.Repeat("/z", 2000))
	}
	for name, c := range map[string]struct {
		entries []string
		want    string
	}{
		"a long name": {[]string{long}, "a name of 921600 bytes, the limit is 4096"},
		"a long link": {[]string{"a->" + long}, "a name of 921600 bytes, the limit is 4096"},
		"many names":  {many, "the names of its files have more than 67108864 bytes in all"},
		"deep names":  {deep, "it holds more than 1000000 files"},
	} {
		_, err := new(files).add(tar.NewReader(bytes.NewReader(archived(t, c.entries...))), 0)
		if err == nil || err.Error() != c.want && !strings.HasSuffix(err.Error(), c.want) {
			t.Errorf("%s: %.200v, want %q", name, err, c.want)
		}
	}
}

// A layer with many removals takes no longer than one with as many additions. In quadratic time these would
// take minutes.
func TestManyWhiteouts(t *testing.T) {
	const many = 30_000
	var files1, files2 []string
	for i := range many {
		files1 = append(files1, fmt.Sprintf("lib/%d", i))
		files2 = append(files2, fmt.Sprintf("new/%d", i), fmt.Sprintf("lib/.wh.%d", i), "new/.wh..wh..opq")
	}
	f := &files{}
	for n, entries := range [][]string{files1, files2} {
		if _, err := f.add(tar.NewReader(bytes.NewReader(archived(t, entries...))), n); err != nil {
			t.Fatal(err)
		}
	}
	for at, want := range map[string]bool{"/lib/0": false, "/lib/29999": false, "/new/0": true, "/new/29999": true} {
		if _, _, ok := f.find(at); ok != want {
			t.Errorf("%s is there: %v", at, ok)
		}
	}
}

// Every file is found at its path, whatever two layers hold.
func FuzzFiles(f *testing.F) {
	f.Add(archived(f, "bin/app", "bin->usr/bin", ".wh.bin", "a/../b"), archived(f, "bin/.wh..wh..opq", ".wh..wh..opq", "app->app", "/"))
	f.Add(archived(f, "a", "a/b", "a->/a/b"), archived(f, ".wh.a", "a/b/c", "."))
	f.Fuzz(func(t *testing.T, lower, upper []byte) {
		all := &files{}
		for n, data := range [][]byte{lower, upper} {
			if _, err := all.add(tar.NewReader(bytes.NewReader(data)), n); err != nil {
				return
			}
		}
		all.files("", func(at string, want *file) {
			if found := all.at(clean(at)); found == nil || found.file != want {
				t.Errorf("%q is not found", at)
			}
			if want.target == "" {
				if at, got, ok := all.find(at); !ok || got != *want {
					t.Errorf("%q leads to %+v, %v, want %+v", at, got, ok, want)
				}
			}
		})
		all.look([]string{"/app", "/usr/bin/app"})
		all.modules()
	})
}

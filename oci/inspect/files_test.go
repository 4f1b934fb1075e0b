package inspect

import (
	"archive/tar"
	"strings"
	"testing"

	"github.com/wasmshim/containerd-shim-wasm/oci"
)

const wasm = "\x00asm\x01\x00\x00\x00"

// lay makes a root file system of layers: each entry is PATH, PATH->TARGET for a symbolic link or
// PATH=>TARGET for a hard one.
func lay(t *testing.T, layers ...[]string) files {
	t.Helper()
	f := files{}
	for n, layer := range layers {
		for _, entry := range layer {
			header := &tar.Header{Typeflag: tar.TypeReg, Name: entry}
			if name, target, ok := strings.Cut(entry, "->"); ok {
				header = &tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: target}
			} else if name, target, ok := strings.Cut(entry, "=>"); ok {
				header = &tar.Header{Typeflag: tar.TypeLink, Name: name, Linkname: target}
			}
			if err := f.entry(strings.NewReader(wasm), n, header); err != nil {
				t.Fatal(err)
			}
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
			at, found, ok := lay(t, c.layers...).look(c.command, "/work", nil)
			if ok != (c.want != "") || ok && (at != c.want || found.content != oci.WasmModule) {
				t.Errorf("%s leads to %q (%v, %s), want %q", c.command, at, ok, found.content, c.want)
			}
		})
	}
}

func TestLookUsesTheImagesPath(t *testing.T) {
	f := lay(t, []string{"opt/app"})
	if at, _, ok := f.look("app", "", []string{"PATH=/bin:/opt"}); !ok || at != "/opt/app" {
		t.Errorf("found %q, %v", at, ok)
	}
}

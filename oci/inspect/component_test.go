package inspect_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/wasmshim/containerd-shim-wasm/internal/testimage"
	"github.com/wasmshim/containerd-shim-wasm/oci/inspect"
	"github.com/wasmshim/containerd-shim-wasm/oci/pack"
)

// packed packs a component into an image and inspects it.
func packed(t *testing.T, format string, component []byte, o pack.Options) inspect.Image {
	t.Helper()
	path := filepath.Join(t.TempDir(), "app.wasm")
	if err := os.WriteFile(path, component, 0o644); err != nil {
		t.Fatal(err)
	}
	f, err := pack.FormatNamed(format)
	if err != nil {
		t.Fatal(err)
	}
	o.Modules, o.Format = []string{path}, f
	image, err := pack.Make(o)
	if err != nil {
		t.Fatal(err)
	}
	at := filepath.Join(t.TempDir(), "image.tar")
	if err := image.WriteTar(at, "example.com/tests/packed:v1", false); err != nil {
		t.Fatal(err)
	}
	source, images, closeTar, err := inspect.Tar(at)
	if err != nil {
		t.Fatal(err)
	}
	defer closeTar()
	report, err := inspect.Inspect(t.Context(), source, images[0], node)
	if err != nil {
		t.Fatal(err)
	}
	return report.Images[0]
}

func TestComponents(t *testing.T) {
	command := []string{"wasi:cli/run@0.2.3"}
	for _, c := range []struct {
		name      string
		component []byte
		function  string
		runs      string // "" if it does not run
		problem   string
	}{
		{"command", testimage.Component(nil, command), "", "by its wasi:cli/run@0.2.3", ""},
		{"command by its name here", testimage.Component(nil, command), "_start", "by its wasi:cli/run@0.2.3", ""},
		{"function of an interface", testimage.Component(nil, []string{"own:app/api@1.0.0"}), "own:app/api@1.0.0#greet", "by its function own:app/api@1.0.0#greet", ""},
		{"function", exporting("greet"), "greet", "by its function greet", ""},
		{"library", testimage.Component(nil, []string{"own:app/api@1.0.0"}), "", "", "it is a library, not a command; name a function as FILE#FUNCTION (its exports: own:app/api@1.0.0)"},
		{"nothing", testimage.Component(nil, nil), "", "", "(its exports: none)"},
		{"no such function", exporting("greet"), "great", "", `exports no function "great" (its exports: greet)`},
		{"no such interface", testimage.Component(nil, command), "own:app/api#greet", "", `exports no function "own:app/api#greet"`},
		{"interface as a function", testimage.Component(nil, command), "wasi:cli/run@0.2.3", "", "exports no function"},
		{"import", testimage.Component([]string{"wasi:io/poll@0.2.0", "wasi:keyvalue/store@0.2.0", "own:x/y"}, command), "", "",
			"imports what a Wasm container does not provide: wasi:keyvalue/store@0.2.0, own:x/y;"},
		{"many imports", testimage.Component(strings.Split(strings.Repeat("own:x/y ", 25), " ")[:25], command), "", "", "own:x/y and 5 more"},
		{"damaged", []byte("\x00asm\x0d\x00\x01\x00\x0a\x05"), "", "", "the component ends too early"},
	} {
		t.Run(c.name, func(t *testing.T) {
			o := pack.Options{}
			if c.function != "" {
				o.Entrypoint = []string{"/app.wasm#" + c.function}
			}
			compressed := o
			compressed.Compression = "zstd"
			for way, got := range map[string]inspect.Image{
				"file": packed(t, "image", c.component, o), "layer": packed(t, "layer", c.component, o), "compressed": packed(t, "layer", c.component, compressed),
			} {
				if (got.Runs == "") != (c.runs == "") || !strings.Contains(got.Runs, c.runs) || !strings.Contains(got.Problem, c.problem) || (got.Problem == "") != (c.problem == "") {
					t.Errorf("%s: it runs %q, problem %q; want %q, %q", way, got.Runs, got.Problem, c.runs, c.problem)
				}
				if got.Runs != "" && !strings.Contains(got.Runs, "a WebAssembly component") {
					t.Errorf("%s: it runs %q", way, got.Runs)
				}
			}
		})
	}
}

// exporting returns the parts of a component that inspect reads; the component exports a function.
func exporting(function string) []byte {
	size := byte(len(function))
	return []byte("\x00asm\x0d\x00\x01\x00\x0b" + string([]byte{size + 6, 1, 0, size}) + function + "\x01\x00\x00")
}

func TestLargeComponentsAreRefused(t *testing.T) {
	padded := append(testimage.Component(nil, []string{"wasi:cli/run@0.2.3"}), "\x00\x80\x80\x80\x01\x04test"...)
	padded = append(padded, make([]byte, 1<<21-5)...)
	for _, format := range []string{"image", "layer"} {
		if got := packed(t, format, padded, pack.Options{}); !strings.Contains(got.Problem, "max_module_size") {
			t.Errorf("%s: it runs %q, problem %q", format, got.Runs, got.Problem)
		}
	}
}

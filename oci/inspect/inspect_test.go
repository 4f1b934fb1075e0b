package inspect_test

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"

	"github.com/wasmshim/containerd-shim-wasm/internal/testimage"
	"github.com/wasmshim/containerd-shim-wasm/internal/testregistry"
	"github.com/wasmshim/containerd-shim-wasm/oci/blob"
	"github.com/wasmshim/containerd-shim-wasm/oci/inspect"
	"github.com/wasmshim/containerd-shim-wasm/oci/registry"
)

// guest has a custom section, so that its first half is the start of a module.
var guest = []byte("\x00asm\x01\x00\x00\x00\x00\x05\x04test")

// component is a command.
var component = testimage.Component([]string{"wasi:io/streams@0.2.3"}, []string{"own:app/api", "wasi:cli/run@0.2.3"})

// guestOf returns the guest that a format is made for.
func guestOf(f testimage.Format) []byte {
	if f.Component {
		return component
	}
	return guest
}

var node = inspect.Node{MaxModuleSize: 1 << 20}

// fromTar writes an image to a tar and inspects that.
func fromTar(t *testing.T, image *testimage.Image) inspect.Report {
	t.Helper()
	path := filepath.Join(t.TempDir(), "image.tar")
	const called = "example.com/tests/image:v1"
	if err := image.WriteTar(path, called); err != nil {
		t.Fatal(err)
	}
	source, images, closeTar, err := inspect.Tar(path)
	if err != nil {
		t.Fatal(err)
	}
	defer closeTar()
	if len(images) != 1 || images[0].Name != called {
		t.Fatalf("found %v in the tar", images)
	}
	report, err := inspect.Inspect(t.Context(), source, images[0], node)
	if err != nil {
		t.Fatal(err)
	}
	if report.Digest != image.Root.Digest {
		t.Errorf("reported on %s, want %s", report.Digest, image.Root.Digest)
	}
	return report
}

func TestEveryFormatRuns(t *testing.T) {
	for _, f := range testimage.Formats() {
		t.Run(f.Name, func(t *testing.T) {
			report := fromTar(t, f.Build(guestOf(f)))
			wasm := 0
			means := "a WebAssembly module"
			if f.Component {
				means = "a WebAssembly component, by its wasi:cli/run@0.2.3"
			}
			for _, i := range report.Images {
				if i.Problem != "" {
					t.Errorf("%s: %s", i.Platform, i.Problem)
				}
				if strings.Contains(i.Runs, means) || strings.Contains(i.Runs, "/plugin.wasm") {
					wasm++
				}
				if i.NeedsCommand != f.NeedsCommand() {
					t.Errorf("%s needs a command: %v, want %v", i.Platform, i.NeedsCommand, f.NeedsCommand())
				}
				if refused := strings.HasPrefix(i.Ctr, "no"); refused != f.ArtifactConfig {
					t.Errorf("ctr: %q", i.Ctr)
				}
				if !strings.HasPrefix(i.CRI, "yes") && !strings.HasPrefix(i.CRI, "only by its digest") {
					t.Errorf("CRI: %q", i.CRI)
				}
				if f.Asks != "" && i.Platform == f.Asks && (!strings.Contains(i.Ctr, "--platform "+f.Asks) || !strings.Contains(i.CRI, i.Digest.String())) {
					t.Errorf("%s has to be asked for, but the report says %q and %q", f.Asks, i.Ctr, i.CRI)
				}
			}
			if wasm == 0 {
				t.Errorf("nothing of it runs as Wasm: %+v", report.Images)
			}
		})
	}
}

func TestNativeProgramIsSaidToBeOne(t *testing.T) {
	f, ok := testimage.Named("layer-index-native")
	if !ok {
		t.Fatal("no such format")
	}
	for _, i := range fromTar(t, f.Build(guest)).Images {
		if native := strings.Contains(i.Runs, "stock runc shim"); native != (i.Platform == testimage.Native()) {
			t.Errorf("%s: %s", i.Platform, i.Runs)
		}
	}
}

func TestBadImagesSayWhy(t *testing.T) {
	reasons := map[string]string{
		"bad-two-modules":        "without a title",
		"bad-two-modules-titled": "one.wasm, two.wasm",
		"bad-tar-as-wasm":        "holds a tar archive",
		"bad-text-as-wasm":       "text format",
		"bad-gzip-as-wasm":       "holds gzip-compressed data",
		"bad-wasm-as-gzip":       "holds a WebAssembly module",
		"bad-empty-layer":        "holds nothing",
		"bad-component-imports":  "does not provide: wasi:keyvalue/store@0.2.0;",
		"bad-component-library":  "it is a library",
		"bad-no-config":          "no config",
		"bad-platforms":          "",
		"bad-half-gzip":          "unexpected EOF",
		"bad-half-module":        "holds data of an unknown kind",
	}
	for _, f := range testimage.Bad() {
		t.Run(f.Name, func(t *testing.T) {
			reason, known := reasons[f.Name]
			if !known {
				t.Fatal("it is not said what is wrong with this one")
			}
			module := guest
			if f.Name == "bad-half-module" {
				module = guest[:8] // otherwise its first half would still be recognised as a module
			}
			for _, i := range fromTar(t, f.Build(module)).Images {
				if f.Name == "bad-platforms" {
					if strings.HasPrefix(i.Ctr, "yes;") || i.Ctr == "yes" || i.CRI == "yes" {
						t.Errorf("ctr %q, CRI %q", i.Ctr, i.CRI)
					}
					continue
				}
				if !strings.Contains(i.Problem, reason) || i.Ctr != "no" || i.CRI != "no" {
					t.Errorf("%q, ctr %q, CRI %q; want %q, no, no", i.Problem, i.Ctr, i.CRI, reason)
				}
			}
		})
	}
}

func TestLargeModulesAreRefused(t *testing.T) {
	small := testimage.TooLarge(guest, 1<<20-100)
	if problem := fromTar(t, small).Images[0].Problem; problem != "" {
		t.Errorf("a module below the limit: %s", problem)
	}
	images := map[string]*testimage.Image{"a large layer": testimage.TooLarge(guest, 1<<20+1)}
	for _, f := range testimage.Bombs(1<<20 + 1) {
		images[f.Name] = f.Build(guest)
	}
	for name, image := range images {
		if problem := fromTar(t, image).Images[0].Problem; !strings.Contains(problem, "max_module_size") {
			t.Errorf("%s: the report says %q", name, problem)
		}
	}
}

func TestDamagedBlobIsReported(t *testing.T) {
	f, ok := testimage.Named("layer-application-wasm")
	if !ok {
		t.Fatal("no such format")
	}
	image := f.Build(guest)
	image.Blobs[image.Wasm()[0]] = append([]byte("\x00asm\x01\x00\x00\x00"), "another one"...)
	report := fromTar(t, image)
	if !strings.Contains(report.Images[0].Problem, "another content than its digest says") {
		t.Errorf("the report says %q", report.Images[0].Problem)
	}
	delete(image.Blobs, image.Wasm()[0])
	report = fromTar(t, image)
	if !strings.Contains(report.Images[0].Problem, blob.ErrMissing.Error()) {
		t.Errorf("the report says %q", report.Images[0].Problem)
	}
}

func TestRegistrySaysTheSameAsATar(t *testing.T) {
	server := testregistry.Start(t)
	for _, format := range []string{"oci-index", "several", "artifact-wkg", "docker-tar-wasi-wasm"} {
		f, ok := testimage.Named(format)
		if !ok {
			t.Fatalf("no format %s", format)
		}
		image := f.Build(guestOf(f))
		ref, err := name.ParseReference(server.Push(t, f.Name, image))
		if err != nil {
			t.Fatal(err)
		}
		source, root, err := registry.Find(ref)
		if err != nil {
			t.Fatal(err)
		}
		report, err := inspect.Inspect(t.Context(), source, inspect.Named{Name: "example.com/tests/image:v1", Root: root}, node)
		if err != nil {
			t.Fatal(err)
		}
		if got, want := printed(t, report), printed(t, fromTar(t, image)); got != want {
			t.Errorf("%s: the registry's report is\n%s, that of a tar\n%s", f.Name, got, want)
		}
	}
}

func printed(t *testing.T, report inspect.Report) string {
	t.Helper()
	var text strings.Builder
	if err := report.Print(&text); err != nil {
		t.Fatal(err)
	}
	return text.String()
}

func TestPrintKeepsControlCharactersFromTheTerminal(t *testing.T) {
	text := printed(t, inspect.Report{Name: "a\x1b[2Jb\u009bc", Images: []inspect.Image{{Ctr: "no", CRI: "no"}}})
	if strings.ContainsAny(text, "\x1b\u009b") {
		t.Errorf("printed %q", text)
	}
}

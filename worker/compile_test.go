package worker

import (
	"archive/zip"
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	wasmtime "github.com/bytecodealliance/wasmtime-go/v44"
	"github.com/klauspost/compress/zstd"

	"github.com/wasmshim/containerd-shim-wasm/worker/control"
)

// command is a module that does nothing.
func command(t *testing.T) []byte {
	t.Helper()
	wasm, err := wasmtime.Wat2Wasm(`(module (func (export "_start")) (func (export "add") (param i32)))`)
	if err != nil {
		t.Fatal(err)
	}
	return wasm
}

// libraryComponent is a component whose only function is greet.
func libraryComponent(t *testing.T, imports string) []byte {
	t.Helper()
	wasm, err := wasmtime.Wat2Wasm(`(component ` + imports + `
		(core module $m (func (export "greet")))
		(core instance $i (instantiate $m))
		(func (export "greet") (canon lift (core func $i "greet"))))`)
	if err != nil {
		t.Fatal(err)
	}
	return wasm
}

// compile passes content to Compile, and returns the description and the machine code.
func compile(t *testing.T, order control.Compile, content []byte) (*control.Module, []byte, error) {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "in"), content, 0o600); err != nil {
		t.Fatal(err)
	}
	in, err := os.Open(filepath.Join(dir, "in"))
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	out, err := os.Create(filepath.Join(dir, "out"))
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	order.Name, order.Config = "layer", "/etc/config.toml"
	if order.MaxSize == 0 {
		order.MaxSize = 1 << 20
	}
	module, err := Compile(order, in, out)
	code, readErr := os.ReadFile(out.Name())
	if readErr != nil {
		t.Fatal(readErr)
	}
	return module, code, err
}

// packed returns content in a compression.
func packed(t *testing.T, compression string, content []byte) []byte {
	t.Helper()
	var buffer bytes.Buffer
	write := func(w io.WriteCloser, err error) {
		if err == nil {
			_, err = w.Write(content)
		}
		if err = errors.Join(err, w.Close()); err != nil {
			t.Fatal(err)
		}
	}
	switch compression {
	case "gzip":
		write(gzip.NewWriter(&buffer), nil)
	case "zstd":
		write(zstd.NewWriter(&buffer))
	case "zip":
		return zipped(t, map[string][]byte{"README": []byte("text"), "folder/app.wasm": content})
	default:
		return content
	}
	return buffer.Bytes()
}

func zipped(t *testing.T, files map[string][]byte) []byte {
	t.Helper()
	var buffer bytes.Buffer
	archive := zip.NewWriter(&buffer)
	if _, err := archive.Create("folder/"); err != nil {
		t.Fatal(err)
	}
	for name, content := range files {
		w, err := archive.Create(name)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(content); err != nil {
			t.Fatal(err)
		}
	}
	if err := archive.Close(); err != nil {
		t.Fatal(err)
	}
	return buffer.Bytes()
}

var compressions = []string{"", "gzip", "zstd", "zip"}

func TestCompileUnpacks(t *testing.T) {
	wasm := command(t)
	_, want, err := compile(t, control.Compile{}, wasm)
	if err != nil {
		t.Fatal(err)
	}
	for _, compression := range compressions {
		module, code, err := compile(t, control.Compile{Compression: compression}, packed(t, compression, wasm))
		if err != nil || !slices.Equal(module.Functions, []string{"_start"}) || module.Precompiled || !bytes.Equal(code, want) {
			t.Errorf("%q: got %+v with %d bytes, %v", compression, module, len(code), err)
		}
	}
}

// A file may have several frames, and one may unpack to more than is read at once.
func TestCompileUnpacksInPieces(t *testing.T) {
	wasm := command(t)
	// A custom section of half a megabyte, without a meaning and incompressible.
	noise := make([]byte, 524287-len("\x04name"))
	rand.NewChaCha8([32]byte{}).Read(noise)
	wasm = slices.Concat(wasm, []byte("\x00\xff\xff\x1f\x04name"), noise)
	for _, compression := range []string{"gzip", "zstd"} {
		frames := slices.Concat(packed(t, compression, wasm[:10]), packed(t, compression, wasm[10:]))
		if module, _, err := compile(t, control.Compile{Compression: compression}, frames); err != nil || module == nil {
			t.Errorf("%s: %v", compression, err)
		}
	}
}

func TestCompileLimitsWhatIsUnpacked(t *testing.T) {
	wasm := command(t)
	zeros := append(slices.Clone(wasm), make([]byte, 64<<20)...)
	for _, compression := range compressions {
		content := packed(t, compression, zeros)
		_, code, err := compile(t, control.Compile{Compression: compression}, content)
		if err == nil || !strings.Contains(err.Error(), "more than 1048576 bytes, the limit: raise max_module_size in /etc/config.toml") || len(code) > 0 {
			t.Errorf("%q: %d bytes unpack to 64 MiB: got %v", compression, len(content), err)
		}
		exact := control.Compile{Compression: compression, MaxSize: int64(len(wasm))}
		if _, _, err := compile(t, exact, packed(t, compression, wasm)); err != nil {
			t.Errorf("%q: a module of exactly the limit: %v", compression, err)
		}
	}
}

func TestCompileRefuses(t *testing.T) {
	wasm := command(t)
	text := []byte("(module)") // wasmtime would accept it
	for name, test := range map[string]struct {
		compression string
		content     []byte
		want        string
	}{
		"text":              {"", text, `layer is not WebAssembly: it starts with "(module)"`},
		"text, gzip":        {"gzip", packed(t, "gzip", text), `layer is not WebAssembly: it starts with "(module)"`},
		"text, zstd":        {"zstd", packed(t, "zstd", text), "layer is not WebAssembly"},
		"text, zip":         {"zip", packed(t, "zip", text), "layer is not WebAssembly"},
		"nothing":           {"gzip", packed(t, "gzip", nil), "layer is empty"},
		"draft component":   {"gzip", packed(t, "gzip", []byte("\x00asm\x0c\x00\x01\x00")), "layer is not a valid WebAssembly component: failed to parse WebAssembly module: unknown binary version"},
		"damaged component": {"", short(libraryComponent(t, "")), "layer is not a valid WebAssembly component: "},
		"foreign component": {"", libraryComponent(t, `(import "example:host/api" (instance))`), "layer imports what a Wasm container does not provide: example:host/api; build it for wasi:cli/command of WASI 0.2"},
		"other version":     {"gzip", packed(t, "gzip", []byte("\x00asm\x02\x00\x00\x00")), "layer is not a valid WebAssembly module"},
		"not gzip":          {"gzip", wasm, "layer is not gzip, as its media type says"},
		"not zstd":          {"zstd", wasm, "unpack layer: its zstd data is damaged: Unknown frame descriptor"},
		"not zip":           {"zip", wasm, "layer is not zip, as its media type says"},
		"short gzip":        {"gzip", short(packed(t, "gzip", wasm)), "unpack layer: its gzip data is damaged: unexpected EOF"},
		"short zstd":        {"zstd", short(packed(t, "zstd", wasm)), "unpack layer: its zstd data is damaged: unexpected EOF"},
		"short zip":         {"zip", short(packed(t, "zip", wasm)), "layer is not zip"},
		"two in a zip":      {"zip", zipped(t, map[string][]byte{"a.wasm": wasm, "b.wasm": wasm}), "layer must hold one .wasm file and has 2; it holds: "},
		"none in a zip":     {"zip", zipped(t, map[string][]byte{"a\n.txt": text}), `layer must hold one .wasm file and has 0; it holds: "a\n.txt"`},
		"unknown":           {"lzma", wasm, `layer is compressed by "lzma", which is unknown`},
		"damaged module":    {"", wasm[:len(wasm)-1], "layer is not a valid WebAssembly module"},
	} {
		_, code, err := compile(t, control.Compile{Compression: test.compression}, test.content)
		if err == nil || !strings.Contains(err.Error(), test.want) || len(code) > 0 {
			t.Errorf("%s: got %v, want something with %q", name, err, test.want)
		}
	}
}

func short(content []byte) []byte { return content[:len(content)-5] }

// Machine code is accepted unchanged if the operator has allowed it.
func TestCompileTakesPrecompiled(t *testing.T) {
	for name, test := range map[string]struct {
		wasm []byte
		want control.Module
	}{
		"module":    {command(t), control.Module{Functions: []string{"_start"}, Precompiled: true}},
		"component": {libraryComponent(t, ""), control.Module{Functions: []string{"greet"}, Precompiled: true, Component: true}},
	} {
		_, machine, err := compile(t, control.Compile{}, test.wasm)
		if err != nil {
			t.Fatal(err)
		}
		for _, compression := range compressions {
			order := control.Compile{Compression: compression, Digest: "0123"}
			content := packed(t, compression, machine)
			_, code, err := compile(t, order, content)
			if err == nil || !strings.Contains(err.Error(), `layer is precompiled machine code`) || !strings.Contains(err.Error(), `add "sha256:0123" to precompiled in /etc/config.toml`) || len(code) > 0 {
				t.Errorf("%s, %q: not trusted: got %v", name, compression, err)
			}
			order.Trusted = true
			module, code, err := compile(t, order, content)
			if err != nil || !reflect.DeepEqual(*module, test.want) || !bytes.Equal(code, machine) {
				t.Errorf("%s, %q: trusted: got %+v with %d bytes of %d, %v", name, compression, module, len(code), len(machine), err)
			}
		}
	}
}

func TestCompileRefusesMachineCodeOfAnotherEngine(t *testing.T) {
	config := wasmtime.NewConfig()
	config.SetConsumeFuel(true)
	module, err := wasmtime.NewModule(wasmtime.NewEngineWithConfig(config), command(t))
	if err != nil {
		t.Fatal(err)
	}
	other, err := module.Serialize()
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string][]byte{"another engine": other, "cut short": other[:100]} {
		_, code, err := compile(t, control.Compile{Trusted: true}, content)
		if err == nil || !strings.Contains(err.Error(), "layer was precompiled for another engine or processor than this node's: ") || len(code) > 0 {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

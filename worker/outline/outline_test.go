package outline

import (
	"encoding/binary"
	"fmt"
	"os"
	"reflect"
	"strings"
	"testing"

	wasmtime "github.com/bytecodealliance/wasmtime-go/v44"

	"github.com/wasmshim/containerd-shim-wasm/internal/testguest"
	"github.com/wasmshim/containerd-shim-wasm/wasm"
	"github.com/wasmshim/containerd-shim-wasm/worker/engine"
)

func translated(t testing.TB, text string) []byte {
	t.Helper()
	wasm, err := wasmtime.Wat2Wasm(text)
	if err != nil {
		t.Fatal(err)
	}
	return wasm
}

// texts are modules with every kind of import and export.
var texts = []string{
	`(module)`,
	`(module (import "a" "b" (func)) (import "" "" (func (param i32 v128) (result f64 f32 i64))) (export "again" (func 0)) (export "not this" (func 1)))`,
	`(module (import "m" "memory" (memory 1 2)) (import "m" "table" (table 1 funcref)) (import "m" "global" (global (mut externref))) (import "m" "tag" (tag (param i32))))`,
	`(module (func (export "_start")) (func (export "two") (result i32 i32) i32.const 1 i32.const 2) (func (export "") (param i32)) (memory (export "memory") 1) (start 0))`,
	`(module (type (func (param exnref))) (type (func)) (func (export "x") (type 1)))`,
}

// Read returns the imports and functions that the engine finds, for all modules that it compiles.
func TestReadAsTheEngineDoes(t *testing.T) {
	modules := map[string][]byte{"big": testguest.Big(1 << 16), "program": testguest.Program(3)}
	for _, text := range texts {
		modules[text] = translated(t, text)
	}
	for _, name := range []string{"hello-c", "probe"} {
		wasm, err := os.ReadFile(testguest.Build(t, name))
		if err != nil {
			t.Fatal(err)
		}
		modules[name] = wasm
	}
	for name, wasm := range modules {
		got, err := Read(wasm)
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if want := seenByTheEngine(t, wasm); !reflect.DeepEqual(got, want) {
			t.Errorf("%s: got %+v, the engine sees %+v", name, got, want)
		}
	}
}

func seenByTheEngine(t *testing.T, wasm []byte) Module {
	t.Helper()
	compiled, err := wasmtime.NewModule(engine.New(), wasm)
	if err != nil {
		t.Fatal(err)
	}
	var m Module
	for _, i := range compiled.Imports() {
		m.Imports = append(m.Imports, Import{i.Module(), *i.Name()})
	}
	for _, e := range compiled.Exports() {
		if f := e.Type().FuncType(); f != nil && len(f.Params()) == 0 {
			m.Functions = append(m.Functions, e.Name())
		}
	}
	return m
}

// Read fails for a module that is truncated or that has parts it does not know.
func TestReadRefuses(t *testing.T) {
	for name, wasm := range map[string]string{
		"nothing":          "",
		"a component":      "\x00asm\x0d\x00\x01\x00",
		"half a section":   wasm.ModuleHeader + "\x01\x05\x01",
		"bytes left over":  wasm.ModuleHeader + "\x03\x02\x00\x00",
		"a structure":      wasm.ModuleHeader + "\x01\x03\x01\x5f\x00",
		"a long number":    wasm.ModuleHeader + "\x01\xff\xff\xff\xff\xff\x01",
		"too large number": wasm.ModuleHeader + "\x01\xff\xff\xff\xff\x7f",
		"an unknown kind":  wasm.ModuleHeader + "\x02\x04\x01\x00\x00\x09",
		"memory64":         wasm.ModuleHeader + "\x02\x06\x01\x00\x00\x02\x04\x00",
		"no such function": wasm.ModuleHeader + "\x07\x04\x01\x00\x00\x07",
		"many of nothing":  wasm.ModuleHeader + "\x02\x05\xff\xff\xff\xff\x0f",
	} {
		if m, err := Read([]byte(wasm)); err == nil || !strings.HasPrefix(err.Error(), "outline: ") {
			t.Errorf("%s: %+v, %v", name, m, err)
		}
	}
}

// An outline is no larger than its module.
func FuzzRead(f *testing.F) {
	for _, text := range texts {
		f.Add(translated(f, text))
	}
	f.Add([]byte(wasm.ModuleHeader + "\x02\x05\xff\xff\xff\xff\x0f"))
	f.Fuzz(func(t *testing.T, wasm []byte) {
		m, err := Read(wasm)
		if err != nil {
			return
		}
		size := 3 * (len(m.Imports) + len(m.Functions))
		for _, i := range m.Imports {
			size += len(i.Module) + len(i.Name)
		}
		for _, name := range m.Functions {
			size += len(name)
		}
		if size > len(wasm) {
			t.Errorf("%d bytes of outline in a module of %d", size, len(wasm))
		}
	})
}

func BenchmarkRead(b *testing.B) {
	wasm := exporting(150_000)
	for b.Loop() {
		if _, err := Read(wasm); err != nil {
			b.Fatal(err)
		}
	}
}

// exporting returns a module that exports a function under that many names.
func exporting(names int) []byte {
	exports := binary.AppendUvarint(nil, uint64(names))
	for i := range names {
		name := fmt.Sprint(i)
		exports = append(append(append(exports, byte(len(name))), name...), kindFunction, 0)
	}
	module := append([]byte(wasm.ModuleHeader), "\x01\x04\x01\x60\x00\x00"+"\x03\x02\x01\x00"+"\x07"...)
	return append(binary.AppendUvarint(module, uint64(len(exports))), exports...)
}

package engine_test

import (
	"reflect"
	"strings"
	"testing"

	wasmtime "github.com/bytecodealliance/wasmtime-go/v44"

	"github.com/wasmshim/containerd-shim-wasm/wasm"
	"github.com/wasmshim/containerd-shim-wasm/worker/component"
	"github.com/wasmshim/containerd-shim-wasm/worker/engine"
)

// translated returns the binary of a module or component in the text format. A binary is returned unchanged,
// for features that the text format lacks.
func translated(t *testing.T, text string) []byte {
	t.Helper()
	if strings.HasPrefix(text, "\x00asm") {
		return []byte(text)
	}
	binary, err := wasmtime.Wat2Wasm(text)
	if err != nil {
		t.Fatal(err)
	}
	return binary
}

// compile compiles a module or a component.
func compile(t *testing.T, text string) error {
	t.Helper()
	binary := translated(t, text)
	if !wasm.IsComponent(binary) {
		_, err := wasmtime.NewModule(engine.New(), binary)
		return err
	}
	c, err := component.New(binary)
	if err == nil {
		c.Close()
	}
	return err
}

// inComponent returns a component that contains a module.
func inComponent(module string) string { return "(component (core " + module[1:] + ")" }

// The engine compiles the features that compilers for WASI use, in a module and in a component.
func TestAllowed(t *testing.T) {
	for name, text := range map[string]string{
		"multi-value":        `(module (func (result i32 i32) i32.const 1 i32.const 2))`,
		"bulk memory":        `(module (memory 1) (func i32.const 0 i32.const 0 i32.const 1 memory.fill))`,
		"reference types":    `(module (table 1 externref) (func (param externref) i32.const 0 local.get 0 table.set 0))`,
		"SIMD":               `(module (func (result v128) v128.const i64x2 1 2))`,
		"sign extension":     `(module (func (param i32) (result i32) local.get 0 i32.extend8_s))`,
		"saturating":         `(module (func (param f32) (result i32) local.get 0 i32.trunc_sat_f32_s))`,
		"extended constants": `(module (global i32 (i32.add (i32.const 1) (i32.const 2))))`,
		"tail calls":         `(module (func $f return_call $f))`,
		"exceptions": `(module (tag $t (param i32))
			(func (result i32) (block (result i32) (try_table (catch $t 0) i32.const 1 throw $t) i32.const 0)))`,
		"exception references": `(module (tag $t)
			(func (block (result exnref) (try_table (catch_all_ref 0) throw $t) unreachable) throw_ref))`,
	} {
		for _, text := range []string{text, inComponent(text)} {
			if err := compile(t, text); err != nil {
				t.Errorf("%s: %v\n%s", name, err, text)
			}
		}
	}
}

// The engine refuses every other feature, with an error that names it.
func TestLeftOut(t *testing.T) {
	for name, texts := range map[string][]string{
		"threads and shared memory": {`(module (memory 1) (func (drop (i32.atomic.load (i32.const 0)))))`, `(module (memory 1 1 shared))`},
		"memory64":                  {`(module (memory i64 1))`, `(module (table i64 1 funcref))`},
		"multiple memories":         {`(module (memory 1) (memory 1))`},
		"relaxed SIMD":              {`(module (func (param v128 v128) (result v128) local.get 0 local.get 1 i8x16.relaxed_swizzle))`},
		"garbage collection": {`(module (type (struct (field i32))))`, `(module (type (array i8)))`,
			`(module (func (param i31ref)))`, `(module (func (param anyref) local.get 0 drop))`, `(module (rec (type (func)) (type (func))))`,
			`(module (func (result i32) ref.null none ref.is_null))`},
		"typed function references": {`(module (type $f (func)) (func (param (ref $f)) local.get 0 call_ref $f))`, `(module (func (param (ref extern))))`},
		"wide arithmetic":           {`(module (func (param i64 i64) (result i64 i64) local.get 0 local.get 1 i64.mul_wide_u))`},
		"custom page sizes":         {`(module (memory 1 (pagesize 1)))`},
		"stack switching":           {`(module (type $f (func)) (type $c (cont $f)))`},
		// A function whose body is try, end.
		"legacy exceptions": {"\x00asm\x01\x00\x00\x00" + "\x01\x04\x01\x60\x00\x00" + "\x03\x02\x01\x00" + "\x0a\x07\x01\x05\x00\x06\x40\x0b\x0b"},
		"asynchronous components": {`(component (import "f" (func async)))`,
			`(component (core func (canon task.cancel)))`, `(component (type (stream u8)))`, `(component (type (future u8)))`,
			`(component (core func (canon thread.yield)))`},
	} {
		for _, text := range texts {
			err := compile(t, text)
			if err == nil {
				t.Errorf("%s is there: %q", name, text)
				continue
			}
			if got := engine.LeftOut(strings.Join(strings.Fields(err.Error()), " ")); got == nil || !strings.HasPrefix(got.Error(), "uses "+name+", which Wasm containers leave out: ") {
				t.Errorf("%s: of %q it says %v", name, err, got)
			}
		}
	}
	if err := engine.LeftOut("type mismatch: expected i32, found i64"); err != nil {
		t.Errorf("an invalid module %v", err)
	}
}

// New accesses the only field of wasmtime-go's Config, which may change with every version.
func TestConfigIsOnePointer(t *testing.T) {
	config := reflect.TypeFor[wasmtime.Config]()
	if config.NumField() != 1 || config.Field(0).Type.Kind() != reflect.Pointer {
		t.Errorf("wasmtime-go's Config is %v now", config)
	}
}

package worker

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	wasmtime "github.com/bytecodealliance/wasmtime-go/v44"

	"github.com/wasmshim/containerd-shim-wasm/internal/testguest"
	"github.com/wasmshim/containerd-shim-wasm/worker/control"
	"github.com/wasmshim/containerd-shim-wasm/worker/engine"
)

// broken returns a module with invalid code. An error about anything else comes from before the code.
func broken(t *testing.T, text string) []byte {
	t.Helper()
	wasm, err := wasmtime.Wat2Wasm(text)
	if err != nil {
		t.Fatal(err)
	}
	// The last bytes are i32.const 12345 and the end of the function.
	at := bytes.LastIndex(wasm, []byte{0x41, 0xb9, 0xe0, 0x00})
	if at < 0 {
		t.Fatal("no code to break")
	}
	wasm[at] = 0xff
	return wasm
}

const codeToBreak = `(func (result i32) i32.const 12345)`

// Imports and the function to call are checked before the code. Only an error that is the module's own fault
// is a refusal.
func TestJudgedBeforeItsCode(t *testing.T) {
	start, other := "_start", "other"
	for name, test := range map[string]struct {
		text     string
		function *string
		want     string
		forEver  bool
	}{
		"import":       {`(module (import "env" "nothing" (func)) ` + codeToBreak + `)`, &start, `layer imports what a Wasm container does not provide: "env"."nothing"`, true},
		"library":      {`(module (func (export "f")) (func (export "with") (param i32)) ` + codeToBreak + `)`, &start, `module layer has no _start function: it is a library`, false},
		"function":     {`(module (func (export "_start")) ` + codeToBreak + `)`, &other, `module layer exports no function "other" without arguments (it has: "_start")`, false},
		"with":         {`(module (func (export "_start") (param i32)) ` + codeToBreak + `)`, &start, `module layer has no _start function`, false},
		"its code":     {`(module (func (export "_start")) ` + codeToBreak + `)`, &start, `layer is not a valid WebAssembly module`, true},
		"default":      {`(module (func (export "")) ` + codeToBreak + `)`, &start, `layer is not a valid WebAssembly module`, true},
		"any function": {`(module ` + codeToBreak + `)`, nil, `layer is not a valid WebAssembly module`, true},
	} {
		_, code, err := compile(t, control.Compile{Function: test.function}, broken(t, test.text))
		if err == nil || !strings.Contains(err.Error(), test.want) || len(code) > 0 {
			t.Errorf("%s: got %v, want %q", name, err, test.want)
		}
		reason := refusalOf(fmt.Errorf("wrapped: %w", err))
		if (reason != "") != test.forEver || test.forEver && (strings.Contains(reason, "layer") || "layer "+reason != err.Error()) {
			t.Errorf("%s: the refusal is %q, the error %q", name, reason, err)
		}
	}
}

// A feature that is left out is a refusal: validation finds it before anything is compiled.
func TestFeatureIsARefusal(t *testing.T) {
	wasm, err := wasmtime.Wat2Wasm(`(module (func (export "_start")) (memory 1) (func (drop (i32.atomic.load (i32.const 0)))))`)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := compile(t, control.Compile{}, wasm); !strings.Contains(refusalOf(err), "threads") {
		t.Errorf("got %v", err)
	}
}

// The imports of a component are checked before the modules in it, one of which is broken here.
func TestComponentIsJudgedBeforeItsCode(t *testing.T) {
	wasm := broken(t, `(component (import "mine:own/thing" (instance)) (core module `+codeToBreak+`))`)
	if _, _, err := compile(t, control.Compile{}, wasm); !strings.Contains(refusalOf(err), `"mine:own/thing"`) && !strings.Contains(refusalOf(err), "mine:own/thing") {
		t.Errorf("got %v", err)
	}
}

// An error that only this order causes is not a refusal.
func TestOrdersRefusalIsNone(t *testing.T) {
	for _, order := range []control.Compile{{MaxSize: 10}, {Compression: "gzip"}} {
		if _, _, err := compile(t, order, command(t)); err == nil || refusalOf(err) != "" {
			t.Errorf("%+v: %v is a refusal", order, err)
		}
	}
}

// The description of a module stays small, however many functions it exports.
func TestManyFunctionsAreDescribedInLittle(t *testing.T) {
	const many = 150_000
	exports := binary.AppendUvarint(nil, many+1)
	add := func(name string) { exports = append(append(append(exports, byte(len(name))), name...), 0, 0) }
	for i := range many {
		add(fmt.Sprintf("\x01%0100d", i))
	}
	add("_start")
	wasm := []byte("\x00asm\x01\x00\x00\x00" + "\x01\x04\x01\x60\x00\x00" + "\x03\x02\x01\x00" + "\x07")
	wasm = append(binary.AppendUvarint(wasm, uint64(len(exports))), exports...)
	wasm = append(wasm, "\x0a\x04\x01\x02\x00\x0b"...)
	start, last := "_start", fmt.Sprintf("\x01%0100d", many-1)
	module, _, err := compile(t, control.Compile{Function: &start, MaxSize: 32 << 20}, wasm)
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(module)
	if err != nil || len(text) > 64<<10 {
		t.Errorf("the description has %d bytes, %v", len(text), err)
	}
	for _, function := range []*string{&start, &last} {
		if err := module.Check(control.Compile{Name: "layer", Function: function}); err != nil {
			t.Errorf("%.10q: %v", *function, err)
		}
	}
}

func BenchmarkValidate(b *testing.B) {
	wasm := testguest.Big(4 << 20)
	e := engine.New()
	for b.Loop() {
		if err := wasmtime.ModuleValidate(e, wasm); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkCompile(b *testing.B) {
	wasm := testguest.Big(4 << 20)
	e := engine.New()
	for b.Loop() {
		if _, err := wasmtime.NewModule(e, wasm); err != nil {
			b.Fatal(err)
		}
	}
}

package worker

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	wasmtime "github.com/bytecodealliance/wasmtime-go/v44"

	"github.com/wasmshim/containerd-shim-wasm/worker/control"
)

// runText compiles a guest in the text format and runs it in an empty root.
func runText(t *testing.T, text string, order control.Run) (code int, stderr string) {
	t.Helper()
	wasm, err := wasmtime.Wat2Wasm(text)
	if err != nil {
		t.Fatal(err)
	}
	module, machine, err := compile(t, control.Compile{}, wasm)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Contains(module.Functions, order.Function) {
		t.Fatalf("%q is not among the functions %q", order.Function, module.Functions)
	}
	order.Code, order.Root = filepath.Join(t.TempDir(), "module"), t.TempDir()
	if err := os.WriteFile(order.Code, machine, 0o600); err != nil {
		t.Fatal(err)
	}
	g, err := load(order)
	if err != nil {
		t.Fatal(err)
	}
	var output bytes.Buffer
	code = g.run(&output)
	return code, output.String()
}

// exits returns a module whose command exits with the value that body leaves on the stack.
func exits(before, body string) string {
	return `(module (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
		(tag $int (param i32)) (tag $other) (memory (export "memory") 1)` + before + `
		(func (export "_start") ` + body + ` (call $exit)))`
}

// Exceptions thrown in one function are caught in another, as in C++ and with setjmp in C.
func TestExceptions(t *testing.T) {
	const throwers = `
		(func $throws (param i32) (local.get 0) (throw $int))
		(func $deep (param i32) (if (i32.eqz (local.get 0)) (then (call $throws (i32.const 7)))) (call $deep (i32.sub (local.get 0) (i32.const 1))))
		(func $passes (param i32) (block $h (try_table (catch $other $h) (call $deep (local.get 0)))))`
	for name, test := range map[string]struct {
		before, body string
		code         int
		stderr       string
	}{
		"caught":                  {throwers, `(block $h (result i32) (try_table (catch $int $h) (call $throws (i32.const 3))) (i32.const 1))`, 3, ""},
		"caught across functions": {throwers, `(block $h (result i32) (try_table (catch $int $h) (call $passes (i32.const 1000))) (i32.const 1))`, 7, ""},
		"caught and thrown again": {throwers + `
			(func $cleans (block $h (result exnref) (try_table (catch_all_ref $h) (call $throws (i32.const 9))) (return))
				(i32.store (i32.const 0) (i32.const 1)) (throw_ref))`,
			`(i32.add (i32.load (i32.const 0)) (block $h (result i32) (try_table (catch $int $h) (call $cleans)) (i32.const 1)))
			 (i32.add (i32.load (i32.const 0)))`, 10, ""},
		// longjmp throws a pointer to its buffer; the function that called setjmp compares it with its own
		// buffer.
		"setjmp": {throwers, `(local $value i32)
			(loop $again (if (i32.lt_s (local.get $value) (i32.const 5)) (then
				(local.set $value (block $jumped (result i32)
					(try_table (catch $int $jumped) (call $throws (i32.add (local.get $value) (i32.const 1))))
					(unreachable)))
				(br $again))))
			(local.get $value)`, 5, ""},
		"not caught":              {throwers, `(call $passes (i32.const 3)) (i32.const 1)`, trapCode, "does not catch an exception: thrown"},
		"not caught at the start": {throwers + `(func $begins (call $throws (i32.const 2))) (start $begins)`, `(i32.const 1)`, trapCode, "does not catch an exception: thrown"},
		"exit through a catch":    {`(func $leaves (call $exit (i32.const 4)))`, `(block $h (try_table (catch_all $h) (call $leaves))) (i32.const 1)`, 4, ""},
		"trap through a catch":    {`(func $traps unreachable)`, `(block $h (try_table (catch_all $h) (call $traps))) (i32.const 1)`, trapCode, "unreachable"},
	} {
		code, stderr := runText(t, exits(test.before, test.body), control.Run{Function: start})
		if code != test.code || !strings.Contains(stderr, test.stderr) || test.stderr == "" && stderr != "" {
			t.Errorf("%s: exit code %d, standard error %q", name, code, stderr)
		}
	}
}

// A guest's exceptions are in a heap of the engine, which has the limit of the guest's memory.
func TestExceptionsWithinMemory(t *testing.T) {
	text := `(module (memory 1) (tag $link (param exnref)) (func (export "_start") (local $chain exnref)
		(loop $again
			(local.set $chain (block $h (result exnref) (try_table (catch_all_ref $h) (throw $link (local.get $chain))) unreachable))
			(br $again))))`
	code, stderr := runText(t, text, control.Run{Function: start, MemoryLimit: 16 << 20})
	if code != trapCode || !strings.Contains(stderr, "GC heap out of memory") {
		t.Errorf("exit code %d, standard error %q", code, stderr)
	}
}

// An export with an empty name is the default function of a command, as with the wasmtime command.
func TestDefaultExport(t *testing.T) {
	const exit = `(import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32))) (memory (export "memory") 1) (global $set (mut i32) (i32.const 0))`
	const unnamed = `(func (export "") (call $exit (i32.add (global.get $set) (i32.const 5))))`
	for name, test := range map[string]struct {
		body, function string
		code           int
	}{
		"alone":           {unnamed, start, 5},
		"by its own name": {unnamed, "", 5},
		"before _start":   {unnamed + `(func (export "_start") (call $exit (i32.const 6)))`, start, 5},
		"with arguments":  {`(func (export "") (param i32)) (func (export "_start") (call $exit (i32.const 6)))`, start, 6},
		"of a reactor":    {unnamed + `(func (export "_initialize") (global.set $set (i32.const 2)))`, start, 7},
	} {
		if code, stderr := runText(t, "(module "+exit+test.body+")", control.Run{Function: test.function}); code != test.code || stderr != "" {
			t.Errorf("%s: exit code %d, standard error %q", name, code, stderr)
		}
	}
}

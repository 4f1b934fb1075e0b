package component

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	wasmtime "github.com/bytecodealliance/wasmtime-go/v44"

	"github.com/wasmshim/containerd-shim-wasm/wasm"
)

// command returns the text of a component that exports wasi:cli/run: the core function returns 0 for ok and 1
// for the error.
func command(before, module string) string {
	return `(component ` + before + module + `
		(func $run (result (result)) (canon lift (core func $i "run")))
		(instance $r (export "run" (func $run)))
		(export "wasi:cli/run@0.2.3" (instance $r)))`
}

// plain returns the text of a core module without imports, and of its instance.
func plain(body string) string {
	return `(core module $m (memory (export "mem") 1) (tag $t) (func (export "run") (result i32) ` + body + `)) (core instance $i (instantiate $m))`
}

// leaving returns the text of a component that calls a function of wasi:cli/exit with an argument.
func leaving(name, param, code string) string {
	return command(`
		(import "wasi:cli/exit@0.2.6" (instance $exit (export "`+name+`" (func (param "`+param+`)))))
		(core func $leave (canon lower (func $exit "`+name+`")))`, `
		(core module $m (import "host" "leave" (func $leave (param i32)))
			(func (export "run") (result i32) (call $leave (i32.const `+code+`)) unreachable))
		(core instance $i (instantiate $m (with "host" (instance (export "leave" (func $leave))))))`)
}

func compiled(t *testing.T, text string) *Component {
	t.Helper()
	binary, err := wasmtime.Wat2Wasm(text)
	if err != nil {
		t.Fatal(err)
	}
	if !wasm.IsComponent(binary) {
		t.Fatalf("no component: %q", binary[:8])
	}
	c, err := New(binary)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func linked(t *testing.T, c *Component, world World) *Program {
	t.Helper()
	world.Root = t.TempDir()
	p, err := c.Link(world)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return p
}

func TestRunEnds(t *testing.T) {
	for name, test := range map[string]struct {
		text   string
		status int // of an Exit; -1 for a Trap
		says   string
	}{
		"ok":             {command("", plain("i32.const 0")), 0, ""},
		"error":          {command("", plain("i32.const 1")), 1, ""},
		"trap":           {command("", plain("unreachable")), -1, "unreachable"},
		"exception":      {command("", plain("(throw $t) unreachable")), -1, "does not catch an exception: thrown Wasm exception"},
		"exit ok":        {leaving("exit", `status" (result)`, "0"), 0, ""},
		"exit error":     {leaving("exit", `status" (result)`, "1"), 1, ""},
		"exit with code": {leaving("exit-with-code", `status-code" u8`, "200"), 200, ""},
	} {
		err := linked(t, compiled(t, test.text), World{}).Run(Start)
		var exit *Exit
		var trap *Trap
		switch {
		case errors.As(err, &trap):
			if test.status != -1 || !strings.Contains(err.Error(), test.says) {
				t.Errorf("%s: %v", name, err)
			}
		case errors.As(err, &exit):
			if exit.Status != test.status {
				t.Errorf("%s: %v", name, err)
			}
		case err != nil || test.status != 0:
			t.Errorf("%s: %v", name, err)
		}
	}
}

// memory.grow fails in a guest at its memory limit; this guest then returns the error.
func TestRunWithinMemory(t *testing.T) {
	c := compiled(t, command("", plain(`(i32.eq (memory.grow (i32.const 16)) (i32.const -1))`)))
	if err := linked(t, c, World{}).Run(Start); err != nil {
		t.Errorf("no limit: %v", err)
	}
	var exit *Exit
	if err := linked(t, c, World{MemoryLimit: 1 << 20}).Run(Start); !errors.As(err, &exit) || exit.Status != 1 {
		t.Errorf("beyond the limit: %v", err)
	}
}

// Every function without parameters can be called by its name, and no other function can.
func TestFunctions(t *testing.T) {
	c := compiled(t, `(component
		(core module $m (func (export "a") (result i32) i32.const 7) (func (export "b")) (func (export "c") (param i32)))
		(core instance $i (instantiate $m))
		(func $a (result u32) (canon lift (core func $i "a")))
		(func $b (canon lift (core func $i "b")))
		(func $c (param "x" u32) (canon lift (core func $i "c")))
		(instance $api (export "hello" (func $b)) (export "other" (func $c)))
		(export "greet" (func $a))
		(export "takes" (func $c))
		(export "example:greet/api@1.0.0" (instance $api)))`)
	want := []string{"greet", "example:greet/api@1.0.0#hello"}
	if got := c.Functions(); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	for _, name := range want {
		if err := linked(t, c, World{}).Run(name); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, name := range []string{Start, "takes", "hello"} {
		if err := linked(t, c, World{}).Run(name); err == nil {
			t.Errorf("%s can be called", name)
		}
	}
}

func TestUnprovided(t *testing.T) {
	c := compiled(t, `(component
		(import "wasi:cli/environment@0.2.0" (instance))
		(import "wasi:sockets/tcp@0.2.99" (instance))
		(import "wasi:http/outgoing-handler@0.2.0" (instance))
		(import "wasi:http/incoming-handler@0.2.0" (instance))
		(import "wasi:cli/environment@0.3.0" (instance))
		(import "wasi:cli/nonsense@0.2.0" (instance))
		(import "example:host/api" (instance))
		(import "bare" (func)))`)
	want := []string{"wasi:http/incoming-handler@0.2.0", "wasi:cli/environment@0.3.0", "wasi:cli/nonsense@0.2.0", "example:host/api", "bare"}
	if got := c.Unprovided(); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestSerialize(t *testing.T) {
	code, err := compiled(t, command("", plain("i32.const 1"))).Serialize()
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "code")
	if err := os.WriteFile(file, code, 0o600); err != nil {
		t.Fatal(err)
	}
	if is, err := IsCompiled(file); err != nil || !is {
		t.Errorf("not recognised: %t, %v", is, err)
	}
	for name, load := range map[string]func() (*Component, error){
		"from memory": func() (*Component, error) { return Deserialize(code) },
		"mapped":      func() (*Component, error) { return Load(file) },
	} {
		c, err := load()
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		t.Cleanup(c.Close)
		var exit *Exit
		if err := linked(t, c, World{}).Run(Start); !errors.As(err, &exit) || exit.Status != 1 {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A module, its machine code and empty input are not components.
func TestIsNoComponent(t *testing.T) {
	binary, err := wasmtime.Wat2Wasm("(module)")
	if err != nil {
		t.Fatal(err)
	}
	config := wasmtime.NewConfig()
	module, err := wasmtime.NewModule(wasmtime.NewEngineWithConfig(config), binary)
	if err != nil {
		t.Fatal(err)
	}
	code, err := module.Serialize()
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string][]byte{"module": binary, "machine code": code, "nothing": nil} {
		if wasm.IsComponent(content) || wasm.IsCompiledComponent(content) {
			t.Errorf("%s is taken for a component", name)
		}
		if _, err := New(content); err == nil {
			t.Errorf("%s compiles as a component", name)
		}
		if _, err := Deserialize(content); err == nil {
			t.Errorf("%s loads as a component", name)
		}
	}
}

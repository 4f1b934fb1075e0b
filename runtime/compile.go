package runtime

import (
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	wasmtime "github.com/bytecodealliance/wasmtime-go/v44"

	"github.com/wasmshim/containerd-shim-wasm/runtime/control"
)

// Compile is the preparer's work: it reads a module from in, checks that a
// container could run it, and writes machine code to out. Only the process it
// runs in is at risk from a hostile module.
func Compile(order control.Compile, in io.Reader, out *os.File) (*control.Module, error) {
	wasm, err := io.ReadAll(in)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", order.Name, err)
	}
	engine := newEngine()
	module, err := wasmtime.NewModule(engine, wasm)
	if err != nil {
		return nil, fmt.Errorf("%s is not a valid WebAssembly module: %s", order.Name, firstLine(err))
	}
	if err := checkImports(engine, module, order.Name); err != nil {
		return nil, err
	}
	code, err := module.Serialize()
	if err != nil {
		return nil, fmt.Errorf("serialize %s: %w", order.Name, err)
	}
	if order.MaxSize > 0 && int64(len(code)) > order.MaxSize {
		return nil, fmt.Errorf("%s compiles to %d bytes, the limit is %d", order.Name, len(code), order.MaxSize)
	}
	if _, err := out.Write(code); err != nil {
		return nil, fmt.Errorf("write compiled %s: %w", order.Name, err)
	}
	return describe(module), nil
}

// checkImports names what a module imports that no Wasm container provides.
func checkImports(engine *wasmtime.Engine, module *wasmtime.Module, name string) error {
	linker, err := newLinker(engine)
	if err != nil {
		return fmt.Errorf("define WASI: %w", err)
	}
	store := wasmtime.NewStore(engine)
	var unknown []string
	for _, i := range module.Imports() {
		field := ""
		if i.Name() != nil {
			field = *i.Name()
		}
		if linker.Get(store, i.Module(), field) == nil {
			unknown = append(unknown, fmt.Sprintf("%q.%q", i.Module(), field))
		}
	}
	if len(unknown) == 0 {
		return nil
	}
	slices.Sort(unknown)
	return fmt.Errorf("%s imports what a Wasm container does not provide: %s; build it for WASI preview 1 (wasm32-wasip1)",
		name, strings.Join(shorten(slices.Compact(unknown), 20), ", "))
}

// shorten keeps a list readable in an error.
func shorten(list []string, most int) []string {
	if len(list) <= most {
		return list
	}
	return append(list[:most:most], fmt.Sprintf("and %d more", len(list)-most))
}

func describe(module *wasmtime.Module) *control.Module {
	m := &control.Module{}
	for _, e := range module.Exports() {
		if f := e.Type().FuncType(); f != nil && len(f.Params()) == 0 {
			m.Functions = append(m.Functions, e.Name())
		}
	}
	return m
}

// firstLine keeps wasmtime's reason and drops its backtraces.
func firstLine(err error) string {
	var lines []string
	for line := range strings.SplitSeq(err.Error(), "\n") {
		if line = strings.TrimSpace(line); line != "" && line != "Caused by:" {
			lines = append(lines, line)
		}
	}
	return strings.Join(lines, ": ")
}

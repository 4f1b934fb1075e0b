package runtime

import (
	"fmt"
	"os"
	"slices"
	"strings"

	wasmtime "github.com/bytecodealliance/wasmtime-go/v44"

	"github.com/wasmshim/containerd-shim-wasm/runtime/control"
)

// Compile is the preparer's work: it reads a module from in, checks that a
// container could run it, and writes machine code to out. Only the process it
// runs in is at risk from a hostile module.
func Compile(order control.Compile, in, out *os.File) (*control.Module, error) {
	content, err := unpack(order, in)
	if err != nil {
		return nil, err
	}
	engine := newEngine()
	translate := compileModule
	if isMachineCode(content) {
		translate = takePrecompiled
	}
	module, code, err := translate(engine, order, content)
	if err != nil {
		return nil, err
	}
	if err := checkImports(engine, module, order.Name); err != nil {
		return nil, err
	}
	if _, err := out.Write(code); err != nil {
		return nil, fmt.Errorf("write compiled %s: %w", order.Name, err)
	}
	described := describe(module)
	described.Precompiled = isMachineCode(content)
	return described, nil
}

func compileModule(engine *wasmtime.Engine, order control.Compile, wasm []byte) (*wasmtime.Module, []byte, error) {
	if err := checkHeader(order, wasm); err != nil {
		return nil, nil, err
	}
	module, err := wasmtime.NewModule(engine, wasm)
	if err != nil {
		return nil, nil, fmt.Errorf("%s is not a valid WebAssembly module: %s", order.Name, firstLine(err))
	}
	code, err := module.Serialize()
	if err != nil {
		return nil, nil, fmt.Errorf("serialize %s: %w", order.Name, err)
	}
	return module, code, nil
}

// checkHeader says more of what is no module than wasmtime, which would try to read text as
// WebAssembly's text format. The daemon has looked only where the file is not compressed.
func checkHeader(order control.Compile, content []byte) error {
	const magic, component = "\x00asm", "\x00asm\x0d\x00\x01\x00"
	head := string(content[:min(len(content), 8)])
	switch {
	case head == "":
		return fmt.Errorf("%s is empty, not a WebAssembly module", order.Name)
	case !strings.HasPrefix(head, magic):
		return fmt.Errorf(`%s is not WebAssembly: it starts with %q, not with "\0asm"`, order.Name, head)
	case head == component:
		return fmt.Errorf("%s is a WebAssembly component; this version runs core modules only: build it for wasm32-wasip1", order.Name)
	}
	return nil
}

// isMachineCode recognises what wasmtime makes of a module: an ELF file with an ABI of its own
// (ELFOSABI_WASMTIME in wasmtime's crates/environ/src/obj.rs).
func isMachineCode(content []byte) bool {
	return len(content) > 7 && string(content[:4]) == "\x7fELF" && content[7] == 200
}

// takePrecompiled has the engine judge machine code that the operator trusts: whether it was made by
// the same version, with the same settings, for this processor.
func takePrecompiled(engine *wasmtime.Engine, order control.Compile, code []byte) (*wasmtime.Module, []byte, error) {
	if !order.Trusted {
		return nil, nil, order.Distrust()
	}
	module, err := wasmtime.NewModuleDeserialize(engine, code)
	if err != nil {
		return nil, nil, fmt.Errorf("%s was precompiled for another engine or processor than this node's: %s", order.Name, firstLine(err))
	}
	return module, code, nil
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

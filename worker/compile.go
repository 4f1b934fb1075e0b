package worker

import (
	"fmt"
	"os"
	"slices"
	"strings"

	wasmtime "github.com/bytecodealliance/wasmtime-go/v44"

	"github.com/wasmshim/containerd-shim-wasm/internal/text"
	"github.com/wasmshim/containerd-shim-wasm/wasm"
	"github.com/wasmshim/containerd-shim-wasm/worker/component"
	"github.com/wasmshim/containerd-shim-wasm/worker/control"
	"github.com/wasmshim/containerd-shim-wasm/worker/engine"
)

// Compile is the preparer's work: it reads a module or a component from in, checks that a container could run
// it, and writes machine code to out. A hostile module endangers only the process that Compile runs in.
func Compile(order control.Compile, in, out *os.File) (*control.Module, error) {
	content, err := unpack(order, in)
	if err != nil {
		return nil, err
	}
	module, code, err := translate(order, content)
	if err != nil {
		return nil, err
	}
	if _, err := out.Write(code); err != nil {
		return nil, fmt.Errorf("write compiled %s: %w", order.Name, err)
	}
	return module, nil
}

// translate describes a module or a component, and returns its machine code.
func translate(order control.Compile, content []byte) (*control.Module, []byte, error) {
	if wasm.IsCompiled(content) {
		return takePrecompiled(order, content)
	}
	if err := checkTables(order, content); err != nil {
		return nil, nil, err
	}
	if wasm.IsComponent(content) {
		return compileComponent(order, content)
	}
	return compileModule(order, content)
}

func compileModule(order control.Compile, content []byte) (*control.Module, []byte, error) {
	if err := checkHeader(order, content); err != nil {
		return nil, nil, err
	}
	e := engine.New()
	judged, err := judgeEarly(e, order, content)
	if err != nil {
		return nil, nil, err
	}
	module, err := wasmtime.NewModule(e, content)
	if err != nil {
		return nil, nil, fmt.Errorf("%s %s", order.Name, invalid("module", err))
	}
	if !judged {
		if err := checkImports(importsOf(module), order.Name); err != nil {
			return nil, nil, err
		}
	}
	code, err := module.Serialize()
	if err != nil {
		return nil, nil, fmt.Errorf("serialize %s: %w", order.Name, err)
	}
	return describe(functionsOf(module)), code, nil
}

func compileComponent(order control.Compile, content []byte) (*control.Module, []byte, error) {
	if err := judgeComponentEarly(order, content); err != nil {
		return nil, nil, err
	}
	compiled, err := component.New(content)
	if err != nil {
		return nil, nil, badComponent(order, err)
	}
	defer compiled.Close()
	if err := checkInterfaces(compiled.Unprovided(), order.Name); err != nil {
		return nil, nil, err
	}
	code, err := compiled.Serialize()
	if err != nil {
		return nil, nil, fmt.Errorf("serialize %s: %w", order.Name, err)
	}
	return describeComponent(compiled), code, nil
}

// checkHeader returns a better error than wasmtime for a file that is not a module: wasmtime would try to
// parse text as WebAssembly's text format. The daemon has checked only uncompressed files.
func checkHeader(order control.Compile, content []byte) error {
	head := string(content[:min(len(content), wasm.HeadSize)])
	switch {
	case head == "":
		return fmt.Errorf("%s is empty, not a WebAssembly module", order.Name)
	case !strings.HasPrefix(head, wasm.Magic):
		return fmt.Errorf(`%s is not WebAssembly: it starts with %q, not with "\0asm"`, order.Name, head)
	}
	return nil
}

// takePrecompiled makes the engine check machine code that the operator trusts: the same version of the
// engine must have made it, with the same settings, for this processor.
func takePrecompiled(order control.Compile, code []byte) (*control.Module, []byte, error) {
	if !order.Trusted {
		return nil, nil, order.Distrust()
	}
	judge := judgeModule
	if wasm.IsCompiledComponent(code) {
		judge = judgeComponent
	}
	module, err := judge(order, code)
	if err != nil {
		return nil, nil, err
	}
	module.Precompiled = true
	return module, code, nil
}

func judgeModule(order control.Compile, code []byte) (*control.Module, error) {
	e := engine.New()
	module, err := wasmtime.NewModuleDeserialize(e, code)
	if err != nil {
		return nil, foreign(order, err)
	}
	return describe(functionsOf(module)), checkImports(importsOf(module), order.Name)
}

func judgeComponent(order control.Compile, code []byte) (*control.Module, error) {
	loaded, err := component.Deserialize(code)
	if err != nil {
		return nil, foreign(order, err)
	}
	defer loaded.Close()
	return describeComponent(loaded), checkInterfaces(loaded.Unprovided(), order.Name)
}

func foreign(order control.Compile, err error) error {
	return fmt.Errorf("%s was precompiled for another engine or processor than this node's: %s", order.Name, firstLine(err))
}

// shorten keeps a list of names readable in an error.
func shorten(list []string, most int) []string {
	var short []string
	for _, name := range list[:min(len(list), most)] {
		short = append(short, text.Short(name, 120))
	}
	if len(list) > most {
		short = append(short, fmt.Sprintf("and %d more", len(list)-most))
	}
	return short
}

// functionsOf returns the exported functions that take no arguments.
func functionsOf(module *wasmtime.Module) []string {
	var names []string
	for _, e := range module.Exports() {
		if f := e.Type().FuncType(); f != nil && len(f.Params()) == 0 {
			names = append(names, e.Name())
		}
	}
	return names
}

// describe describes a module by its exported functions without arguments.
func describe(functions []string) *control.Module {
	if slices.Contains(functions, defaultExport) && !slices.Contains(functions, start) {
		functions = append(functions, start)
	}
	m := &control.Module{}
	m.SetFunctions(functions)
	return m
}

func describeComponent(c *component.Component) *control.Module {
	m := &control.Module{Component: true}
	m.SetFunctions(c.Functions())
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

package worker

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"

	wasmtime "github.com/bytecodealliance/wasmtime-go/v44"

	"github.com/wasmshim/containerd-shim-wasm/wasm/world"
	"github.com/wasmshim/containerd-shim-wasm/worker/control"
	"github.com/wasmshim/containerd-shim-wasm/worker/engine"
	"github.com/wasmshim/containerd-shim-wasm/worker/outline"
	"github.com/wasmshim/containerd-shim-wasm/worker/preview1"
)

// refusal is a reason why no container could run a module, under any name and for any caller. It can be
// remembered, unlike an error that another order, or more memory, could have avoided.
type refusal struct{ name, reason string }

func (r refusal) Error() string { return r.name + " " + r.reason }

// refusalOf returns the reason if an error is a refusal, else "".
func refusalOf(err error) string {
	var r refusal
	if errors.As(err, &r) {
		return r.reason
	}
	return ""
}

// judgeEarly refuses a module because of the sections before its code, or because the engine finds it
// invalid. Validating takes a hundredth of the time of compiling. judgeEarly reports whether it has checked
// the imports. If the outline does not know the module's format, the imports are checked after compilation.
func judgeEarly(e *wasmtime.Engine, order control.Compile, wasm []byte) (imports bool, err error) {
	if m, unknown := outline.Read(wasm); unknown == nil {
		if err := checkImports(m.Imports, order.Name); err != nil {
			return true, err
		}
		if err := describe(m.Functions).Check(order); err != nil {
			return true, err
		}
		imports = true
	}
	if err := wasmtime.ModuleValidate(e, wasm); err != nil {
		return imports, refusal{order.Name, invalid("module", err)}
	}
	return imports, nil
}

// judgeComponentEarly refuses a component because of its imports.
func judgeComponentEarly(order control.Compile, wasm []byte) error {
	w, err := world.Read(bytes.NewReader(wasm))
	if err != nil {
		return nil // the engine has a better error
	}
	return checkInterfaces(w.Missing(), order.Name)
}

// badComponent returns the error for a component that the engine does not compile. Only a feature that is
// left out is certainly the component's fault: compiling may fail for other reasons.
func badComponent(order control.Compile, err error) error {
	if left := engine.LeftOut(firstLine(err)); left != nil {
		return refusal{order.Name, left.Error()}
	}
	return fmt.Errorf("%s %s", order.Name, invalid("component", err))
}

// invalid returns the reason why the engine does not compile a guest of that kind.
func invalid(kind string, err error) string {
	reason := firstLine(err)
	if err := engine.LeftOut(reason); err != nil {
		return err.Error()
	}
	return fmt.Sprintf("is not a valid WebAssembly %s: %s", kind, reason)
}

// checkImports returns an error that names the imports of a module that no Wasm container provides.
func checkImports(imports []outline.Import, name string) error {
	var unknown []string
	for _, i := range imports {
		if !preview1.Provides(i.Module, i.Name) {
			unknown = append(unknown, fmt.Sprintf("%q.%q", i.Module, i.Name))
		}
	}
	return unprovided(name, unknown, "build it for WASI preview 1 (wasm32-wasip1)")
}

// importsOf returns the imports of a module, from its code.
func importsOf(module *wasmtime.Module) []outline.Import {
	var imports []outline.Import
	for _, i := range module.Imports() {
		one := outline.Import{Module: i.Module()}
		if i.Name() != nil {
			one.Name = *i.Name()
		}
		imports = append(imports, one)
	}
	return imports
}

// checkInterfaces returns an error that names the imports of a component that no Wasm container provides.
func checkInterfaces(missing []string, name string) error {
	return unprovided(name, missing, "build it for wasi:cli/command of WASI 0.2 (wasm32-wasip2)")
}

func unprovided(name string, unknown []string, remedy string) error {
	if len(unknown) == 0 {
		return nil
	}
	slices.Sort(unknown)
	return refusal{name, fmt.Sprintf("imports what a Wasm container does not provide: %s; %s",
		strings.Join(shorten(slices.Compact(unknown), 20), ", "), remedy)}
}

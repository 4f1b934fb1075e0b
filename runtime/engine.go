// Package runtime is the worker: the one process that holds wasmtime. It
// compiles a module or a component that it is handed, or runs a compiled one as a
// guest under WASI preview 1 or 0.2. It expects to be born confined (package sandbox) and does no
// confinement of its own; it opens nothing but the compiled module and the
// guest's root, and what the guest opens there.
package runtime

import (
	wasmtime "github.com/bytecodealliance/wasmtime-go/v44"
)

// newEngine configures wasmtime. Compiling and running must agree on all of it:
// the cache keys compiled code by the worker binary, so a change here makes
// new entries.
func newEngine() *wasmtime.Engine {
	config := wasmtime.NewConfig()
	// Backtraces of guests walk frame pointers; the native tables would be
	// parsed at every load and are for native debuggers only.
	config.SetNativeUnwindInfo(false)
	return wasmtime.NewEngineWithConfig(config)
}

// newLinker offers what a guest may import.
func newLinker(engine *wasmtime.Engine) (*wasmtime.Linker, error) {
	linker := wasmtime.NewLinker(engine)
	if err := linker.DefineWasi(); err != nil {
		return nil, err
	}
	return linker, nil
}

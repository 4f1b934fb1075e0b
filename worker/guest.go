package worker

import (
	"errors"
	"fmt"
	"io"

	wasmtime "github.com/bytecodealliance/wasmtime-go/v44"

	"github.com/wasmshim/containerd-shim-wasm/worker/component"
	"github.com/wasmshim/containerd-shim-wasm/worker/control"
	"github.com/wasmshim/containerd-shim-wasm/worker/engine"
)

// trapCode is the exit code of a guest that trapped: 128 + SIGABRT, as with the wasmtime command and a native
// program that aborts.
const trapCode = 134

// startFailure is the exit code of a guest that could not be started although all checks passed.
const startFailure = 126

// guest is a loaded and linked guest of which no instruction has run.
type guest interface {
	// run runs the guest to its end and returns its exit code. It writes the reason for a failure to stderr.
	run(stderr io.Writer) int
}

// load maps the code and sets up its world.
func load(order control.Run) (guest, error) {
	isComponent, err := component.IsCompiled(order.Code)
	if err != nil {
		return nil, fmt.Errorf("load compiled module: %w", err)
	}
	if isComponent {
		return loadComponent(order)
	}
	return loadModule(order)
}

// moduleGuest is a core module under WASI preview 1.
type moduleGuest struct {
	order  control.Run
	module *wasmtime.Module
	linker *wasmtime.Linker
	store  *wasmtime.Store
	exited *int // the code of proc_exit, nil before it is called
}

func loadModule(order control.Run) (*moduleGuest, error) {
	e := engine.New()
	module, err := wasmtime.NewModuleDeserializeFile(e, order.Code)
	if err != nil {
		return nil, fmt.Errorf("load compiled module: %s", firstLine(err))
	}
	linker, err := newLinker(e)
	if err != nil {
		return nil, fmt.Errorf("define WASI: %w", err)
	}
	wasi, err := newWASI(order)
	if err != nil {
		return nil, err
	}
	store := wasmtime.NewStore(e)
	store.SetWasi(wasi)
	if order.MemoryLimit > 0 {
		store.Limiter(int64(order.MemoryLimit), -1, -1, -1, -1)
	}
	g := &moduleGuest{order: order, module: module, linker: linker, store: store}
	if err := g.defineExit(); err != nil {
		return nil, fmt.Errorf("define proc_exit: %w", err)
	}
	return g, nil
}

// newLinker returns a linker with everything that a guest may import.
func newLinker(engine *wasmtime.Engine) (*wasmtime.Linker, error) {
	linker := wasmtime.NewLinker(engine)
	if err := linker.DefineWasi(); err != nil {
		return nil, err
	}
	return linker, nil
}

// defineExit replaces wasmtime's proc_exit, which traps for codes of 126 and more: a container may exit with
// any code, as a native one.
func (g *moduleGuest) defineExit() error {
	g.linker.AllowShadowing(true)
	return g.linker.FuncWrap("wasi_snapshot_preview1", "proc_exit", func(code int32) *wasmtime.Trap {
		status := int(code)
		g.exited = &status
		return wasmtime.NewTrap("proc_exit") // unwinds the guest
	})
}

// newWASI returns a configuration with the guest's arguments, environment, standard streams and root. The
// kernel decides whether it may read and write files there, by read-only mounts and by file owners.
func newWASI(order control.Run) (*wasmtime.WasiConfig, error) {
	wasi := wasmtime.NewWasiConfig()
	wasi.SetArgv(order.Args)
	wasi.SetEnv(environment(order))
	wasi.InheritStdin()
	wasi.InheritStdout()
	wasi.InheritStderr()
	err := wasi.PreopenDir(order.Root, "/", wasmtime.DIR_READ|wasmtime.DIR_WRITE, wasmtime.FILE_READ|wasmtime.FILE_WRITE)
	if err != nil {
		return nil, fmt.Errorf("open the container's root: %w", err)
	}
	return wasi, nil
}

func (g *moduleGuest) run(stderr io.Writer) int {
	instance, err := g.linker.Instantiate(g.store, g.module)
	if err != nil {
		return g.exitCode(err, stderr, startFailure)
	}
	for _, name := range g.calls(instance) {
		function := instance.GetFunc(g.store, name)
		if function == nil {
			fmt.Fprintf(stderr, "error: module exports no function %q\n", name)
			return startFailure
		}
		if _, err := function.Call(g.store); err != nil {
			return g.exitCode(err, stderr, trapCode)
		}
	}
	return 0
}

// The functions that are called by default. A command's is start. A module may instead export a function with
// an empty name, which takes precedence, as with the wasmtime command.
const (
	start         = "_start"
	defaultExport = ""
	initialize    = "_initialize"
)

// calls returns the functions to call: a function other than _start belongs to a reactor, which is
// initialized first (https://github.com/WebAssembly/WASI/blob/main/legacy/application-abi.md).
func (g *moduleGuest) calls(instance *wasmtime.Instance) []string {
	function := g.order.Function
	if function == start && g.callable(instance, defaultExport) {
		function = defaultExport
	}
	if function != start && function != initialize && g.callable(instance, initialize) {
		return []string{initialize, function}
	}
	return []string{function}
}

// callable reports whether an instance exports a function of that name without parameters.
func (g *moduleGuest) callable(instance *wasmtime.Instance, name string) bool {
	function := instance.GetFunc(g.store, name)
	return function != nil && len(function.Type(g.store).Params()) == 0
}

// exitCode returns the exit code for the error of a call: the code of proc_exit, trapCode for a trap, other
// for any other error.
func (g *moduleGuest) exitCode(err error, stderr io.Writer, other int) int {
	if g.exited != nil {
		return *g.exited
	}
	if engine.Uncaught(err.Error()) {
		fmt.Fprintf(stderr, "error: the guest does not catch an exception: %v\n", err)
		return trapCode
	}
	fmt.Fprintf(stderr, "error: %v\n", err)
	var trap *wasmtime.Trap
	if errors.As(err, &trap) {
		return trapCode
	}
	return other
}

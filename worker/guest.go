package worker

import (
	"errors"
	"fmt"
	"io"
	"os"

	wasmtime "github.com/bytecodealliance/wasmtime-go/v44"

	"github.com/wasmshim/containerd-shim-wasm/worker/component"
	"github.com/wasmshim/containerd-shim-wasm/worker/control"
	"github.com/wasmshim/containerd-shim-wasm/worker/engine"
	"github.com/wasmshim/containerd-shim-wasm/worker/preview1"
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
	wasi   *preview1.Guest
}

func loadModule(order control.Run) (*moduleGuest, error) {
	e := engine.New()
	module, err := wasmtime.NewModuleDeserializeFile(e, order.Code)
	if err != nil {
		return nil, fmt.Errorf("load compiled module: %s", firstLine(err))
	}
	wasi, err := preview1.New(worldOf(order))
	if err != nil {
		return nil, err
	}
	linker := wasmtime.NewLinker(e)
	if err := wasi.Define(linker); err != nil {
		return nil, fmt.Errorf("define WASI: %w", err)
	}
	store := wasmtime.NewStore(e)
	if order.MemoryLimit > 0 {
		store.Limiter(int64(order.MemoryLimit), -1, -1, -1, -1)
	}
	return &moduleGuest{order: order, module: module, linker: linker, store: store, wasi: wasi}, nil
}

// worldOf returns the guest's arguments, environment, standard streams and root. The kernel decides whether it
// may read and write files there, by read-only mounts and by file owners.
func worldOf(order control.Run) preview1.World {
	w := preview1.World{
		Args: order.Args, Roots: []preview1.Root{{Path: order.Root, Name: "/"}},
		Streams: [3]*os.File{os.Stdin, os.Stdout, os.Stderr},
	}
	names, values := environment(order)
	for i, name := range names {
		w.Env = append(w.Env, name+"="+values[i])
	}
	return w
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
	if status, exited := g.wasi.Exited(); exited {
		return status
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

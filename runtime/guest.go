package runtime

import (
	"errors"
	"fmt"
	"io"

	wasmtime "github.com/bytecodealliance/wasmtime-go/v44"

	"github.com/wasmshim/containerd-shim-wasm/runtime/component"
	"github.com/wasmshim/containerd-shim-wasm/runtime/control"
)

// TrapCode is the exit code of a guest that trapped: 128 + SIGABRT, as the
// wasmtime command and a native program that aborts.
const TrapCode = 134

// StartFailure is the exit code of a guest that could not be started after all
// that could be checked before had been.
const StartFailure = 126

// guest is loaded and linked; no instruction of it has run.
type guest interface {
	// run runs the guest to its end and returns its exit code. What a person must
	// know about a bad end goes to stderr.
	run(stderr io.Writer) int
}

// load maps what was compiled and sets up its world.
func load(order control.Guest) (guest, error) {
	isComponent, err := component.IsCompiled(order.Module)
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
	order  control.Guest
	module *wasmtime.Module
	linker *wasmtime.Linker
	store  *wasmtime.Store
	exited *int // the code of proc_exit, once called
}

func loadModule(order control.Guest) (*moduleGuest, error) {
	engine := newEngine()
	module, err := wasmtime.NewModuleDeserializeFile(engine, order.Module)
	if err != nil {
		return nil, fmt.Errorf("load compiled module: %s", firstLine(err))
	}
	linker, err := newLinker(engine)
	if err != nil {
		return nil, fmt.Errorf("define WASI: %w", err)
	}
	wasi, err := newWASI(order)
	if err != nil {
		return nil, err
	}
	store := wasmtime.NewStore(engine)
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

// defineExit replaces wasmtime's proc_exit, which takes codes from 126 on for a
// mistake and traps: a container may exit with any code, as a native one.
func (g *moduleGuest) defineExit() error {
	g.linker.AllowShadowing(true)
	return g.linker.FuncWrap("wasi_snapshot_preview1", "proc_exit", func(code int32) *wasmtime.Trap {
		status := int(code)
		g.exited = &status
		return wasmtime.NewTrap("proc_exit") // unwinds the guest
	})
}

// newWASI gives the guest its arguments, environment, standard streams and
// root. What may be read and written there is the kernel's business: mounts are
// read-only or not, and files belong to somebody.
func newWASI(order control.Guest) (*wasmtime.WasiConfig, error) {
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
		return g.exitCode(err, stderr, StartFailure)
	}
	for _, name := range g.calls(instance) {
		function := instance.GetFunc(g.store, name)
		if function == nil {
			fmt.Fprintf(stderr, "error: module exports no function %q\n", name)
			return StartFailure
		}
		if _, err := function.Call(g.store); err != nil {
			return g.exitCode(err, stderr, TrapCode)
		}
	}
	return 0
}

// calls lists what to call: a function other than _start belongs to a reactor,
// which is initialized first
// (https://github.com/WebAssembly/WASI/blob/main/legacy/application-abi.md).
func (g *moduleGuest) calls(instance *wasmtime.Instance) []string {
	const initialize = "_initialize"
	if g.order.Function != "_start" && g.order.Function != initialize && instance.GetFunc(g.store, initialize) != nil {
		return []string{initialize, g.order.Function}
	}
	return []string{g.order.Function}
}

// exitCode turns what ended a call into an exit code: proc_exit's own, TrapCode
// for a trap, other for anything else.
func (g *moduleGuest) exitCode(err error, stderr io.Writer, other int) int {
	if g.exited != nil {
		return *g.exited
	}
	fmt.Fprintf(stderr, "error: %v\n", err)
	var trap *wasmtime.Trap
	if errors.As(err, &trap) {
		return TrapCode
	}
	return other
}

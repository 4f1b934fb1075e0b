package component

/*
#include <stdlib.h>
#include "capi.h"

// call calls a function without parameters. *failed is true if the function returns a result
// with an error.
static wasmtime_error_t *call(const wasmtime_component_func_t *func, wasmtime_context_t *context, bool *failed) {
	wasmtime_component_func_type_t *type = wasmtime_component_func_type(func, context);
	wasmtime_component_valtype_t result_type;
	bool has_result = wasmtime_component_func_type_result(type, &result_type);
	if (has_result)
		wasmtime_component_valtype_delete(&result_type);
	wasmtime_component_func_type_delete(type);
	wasmtime_component_val_t result = { 0 };
	wasmtime_error_t *err = wasmtime_component_func_call(func, context, NULL, 0, &result, has_result ? 1 : 0);
	if (err != NULL || !has_result)
		return err;
	*failed = result.kind == VAL_RESULT && !result.of.result.is_ok;
	wasmtime_component_val_delete(&result);
	return NULL;
}

static bool traced(const wasmtime_error_t *err) {
	wasm_frame_vec_t frames;
	wasmtime_error_wasm_trace(err, &frames);
	bool any = frames.size > 0;
	wasm_frame_vec_delete(&frames);
	return any;
}
*/
import "C"

import (
	"errors"
	"fmt"
	"unsafe"

	"github.com/wasmshim/containerd-shim-wasm/worker/engine"
)

// World is a guest's arguments, environment, root and memory limit.
type World struct {
	Args                []string
	EnvNames, EnvValues []string
	Root                string // the directory that becomes the guest's "/"
	MemoryLimit         uint64 // bytes of each linear memory; 0 is no limit
}

// Program is a linked component of which no instruction has run.
type Program struct {
	component *Component
	linker    *C.wasmtime_component_linker_t
	store     *C.wasmtime_store_t
	context   *C.wasmtime_context_t
	status    *C.int // the guest's exit status, or notExited
	denied    *C.int // whether a request of the guest has been denied
}

// Trap is the end of a guest that did something that WebAssembly or its world does not allow.
type Trap struct{ message string }

func (t *Trap) Error() string { return t.message }

// Exit is the end of a guest that exited by itself.
type Exit struct{ Status int }

func (e *Exit) Error() string { return fmt.Sprintf("exit status %d", e.Status) }

// Link sets up a component's world. The guest inherits the process's standard streams.
func (c *Component) Link(world World) (*Program, error) {
	wasi, err := newWASI(world)
	if err != nil {
		return nil, err
	}
	p := &Program{component: c, linker: C.wasmtime_component_linker_new(c.engine), store: C.wasmtime_store_new(c.engine, nil, nil)}
	p.status, p.denied = newInt(notExited), newInt(0)
	p.context = C.wasmtime_store_context(p.store)
	if world.MemoryLimit > 0 {
		C.wasmtime_store_limiter(p.store, C.int64_t(world.MemoryLimit), -1, -1, -1, -1)
	}
	if err := p.define(wasi); err != nil {
		p.Close()
		return nil, fmt.Errorf("define WASI: %w", err)
	}
	return p, nil
}

// define takes ownership of wasi.
func (p *Program) define(wasi *C.wasi_config_t) error {
	if failure := C.wasmtime_context_set_wasi(p.context, wasi); failure != nil {
		return errors.New(message(failure))
	}
	if failure := C.wasmtime_component_linker_add_wasip2(p.linker); failure != nil {
		return errors.New(message(failure))
	}
	C.wasmtime_component_linker_allow_shadowing(p.linker, true)
	if err := p.defineExit(); err != nil {
		return err
	}
	return p.defineHTTP()
}

func newWASI(world World) (*C.wasi_config_t, error) {
	wasi := C.wasi_config_new()
	args, freeArgs := cStrings(world.Args)
	defer freeArgs()
	names, freeNames := cStrings(world.EnvNames)
	defer freeNames()
	values, freeValues := cStrings(world.EnvValues)
	defer freeValues()
	root, freeRoot := cStrings([]string{world.Root, "/"})
	defer freeRoot()
	const readAndWrite = 1 | 2
	ok := bool(C.wasi_config_set_argv(wasi, C.size_t(len(args)), unsafe.SliceData(args))) &&
		bool(C.wasi_config_set_env(wasi, C.size_t(len(names)), unsafe.SliceData(names), unsafe.SliceData(values)))
	if !ok {
		C.wasi_config_delete(wasi)
		return nil, errors.New("arguments and environment must be UTF-8")
	}
	C.wasi_config_inherit_stdin(wasi)
	C.wasi_config_inherit_stdout(wasi)
	C.wasi_config_inherit_stderr(wasi)
	if !C.wasi_config_preopen_dir(wasi, root[0], root[1], readAndWrite, readAndWrite) {
		C.wasi_config_delete(wasi)
		return nil, errors.New("open the container's root")
	}
	return wasi, nil
}

// cStrings copies strings for C; free frees the copies.
func cStrings(given []string) (copies []*C.char, free func()) {
	for _, s := range given {
		copies = append(copies, C.CString(s))
	}
	return copies, func() {
		for _, s := range copies {
			C.free(unsafe.Pointer(s))
		}
	}
}

// newInt returns an int that C may keep.
func newInt(value C.int) *C.int {
	p := (*C.int)(C.malloc(C.sizeof_int))
	*p = value
	return p
}

// Close frees the program, not its component.
func (p *Program) Close() {
	C.wasmtime_component_linker_delete(p.linker)
	C.wasmtime_store_delete(p.store)
	C.free(unsafe.Pointer(p.status))
	C.free(unsafe.Pointer(p.denied))
}

// Run instantiates the component and calls the function of that name, one of its Functions. The error is an
// *Exit with status 1 if the function returns an error, an *Exit if the guest has called wasi:cli/exit, a
// *Trap, or another error if the component could not be started.
func (p *Program) Run(name string) error {
	var instance C.wasmtime_component_instance_t
	if failure := C.wasmtime_component_linker_instantiate(p.linker, p.context, p.component.ptr, &instance); failure != nil {
		return p.ended(failure)
	}
	index, err := p.component.export(name)
	if err != nil {
		return err
	}
	defer C.wasmtime_component_export_index_delete(index)
	var callee C.wasmtime_component_func_t
	if !C.wasmtime_component_instance_get_func(&instance, p.context, index, &callee) {
		return fmt.Errorf("component has lost its function %q", name)
	}
	var failed C.bool
	if failure := C.call(&callee, p.context, &failed); failure != nil {
		return p.ended(failure)
	}
	if failed {
		return &Exit{Status: 1}
	}
	return nil
}

// export looks a function up; the caller deletes the index that it returns.
func (c *Component) export(name string) (*C.wasmtime_component_export_index_t, error) {
	for _, f := range c.functions() {
		if f.name != name {
			continue
		}
		if f.instance == "" {
			return c.exportIn(nil, f.member), nil
		}
		instance := c.exportIn(nil, f.instance)
		defer C.wasmtime_component_export_index_delete(instance)
		return c.exportIn(instance, f.member), nil
	}
	return nil, fmt.Errorf("component exports no function %q", name)
}

func (c *Component) exportIn(instance *C.wasmtime_component_export_index_t, name string) *C.wasmtime_component_export_index_t {
	text := C.CString(name)
	defer C.free(unsafe.Pointer(text))
	return C.wasmtime_component_get_export_index(c.ptr, instance, text, C.size_t(len(name)))
}

// ended returns the error for the end of a guest, and frees failure.
func (p *Program) ended(failure *C.wasmtime_error_t) error {
	if *p.status != notExited {
		C.wasmtime_error_delete(failure)
		return &Exit{Status: int(*p.status)}
	}
	traced := bool(C.traced(failure))
	switch text := message(failure); {
	case engine.Uncaught(text):
		return &Trap{"the guest does not catch an exception: " + text}
	case traced:
		return &Trap{text}
	default:
		return errors.New(text)
	}
}

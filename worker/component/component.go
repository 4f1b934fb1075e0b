// Package component runs WebAssembly components (the component model, WASI 0.2) with the library that
// wasmtime-go links, but wraps for core modules only. It is a thin layer over wasmtime's C API
// (docs.wasmtime.dev/c-api), and trusts the code that it loads as much as wasmtime does.
//
// Package component confines nothing, opens only the compiled code and the guest's root, and gives a guest no
// network: the C API cannot grant it.
package component

/*
#cgo LDFLAGS: -Wl,--unresolved-symbols=ignore-all
#include <stdlib.h>
#include "capi.h"

// These wrappers return the component, which the C API writes to a pointer.
static wasmtime_component_t *compile(wasm_engine_t *engine, const uint8_t *wasm, size_t size, wasmtime_error_t **err) {
	wasmtime_component_t *component = NULL;
	*err = wasmtime_component_new(engine, wasm, size, &component);
	return component;
}

static wasmtime_component_t *deserialize(wasm_engine_t *engine, const uint8_t *code, size_t size, wasmtime_error_t **err) {
	wasmtime_component_t *component = NULL;
	*err = wasmtime_component_deserialize(engine, code, size, &component);
	return component;
}

static wasmtime_component_t *deserialize_file(wasm_engine_t *engine, const char *path, wasmtime_error_t **err) {
	wasmtime_component_t *component = NULL;
	*err = wasmtime_component_deserialize_file(engine, path, &component);
	return component;
}
*/
import "C"

import (
	"errors"
	"io"
	"os"
	"unsafe"

	_ "github.com/bytecodealliance/wasmtime-go/v44" // links the library

	"github.com/wasmshim/containerd-shim-wasm/wasm"
	"github.com/wasmshim/containerd-shim-wasm/worker/engine"
)

// IsCompiled reports whether a file is machine code that wasmtime made of a component.
func IsCompiled(path string) (bool, error) {
	file, err := os.Open(path)
	if err != nil {
		return false, err
	}
	defer file.Close()
	header := make([]byte, wasm.ELFHeadSize)
	n, err := file.ReadAt(header, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return false, err
	}
	return wasm.IsCompiledComponent(header[:n]), nil
}

// Component is a compiled component.
type Component struct {
	engine *C.wasm_engine_t
	ptr    *C.wasmtime_component_t
}

func newEngine() *C.wasm_engine_t {
	config := C.wasm_config_new()
	engine.Configure(unsafe.Pointer(config))
	return C.wasm_engine_new_with_config(config) // takes config
}

// New compiles a component in the binary format. The error is wasmtime's.
func New(wasm []byte) (*Component, error) {
	return made(func(engine *C.wasm_engine_t, err **C.wasmtime_error_t) *C.wasmtime_component_t {
		return C.compile(engine, bytePtr(wasm), C.size_t(len(wasm)), err)
	})
}

// Deserialize loads code that Serialize returned. Other input is undefined behaviour, unless wasmtime
// recognises it as made by another version or for another processor.
func Deserialize(code []byte) (*Component, error) {
	return made(func(engine *C.wasm_engine_t, err **C.wasmtime_error_t) *C.wasmtime_component_t {
		return C.deserialize(engine, bytePtr(code), C.size_t(len(code)), err)
	})
}

// Load maps a file with code that Serialize returned; see Deserialize.
func Load(path string) (*Component, error) {
	name := C.CString(path)
	defer C.free(unsafe.Pointer(name))
	return made(func(engine *C.wasm_engine_t, err **C.wasmtime_error_t) *C.wasmtime_component_t {
		return C.deserialize_file(engine, name, err)
	})
}

func made(do func(*C.wasm_engine_t, **C.wasmtime_error_t) *C.wasmtime_component_t) (*Component, error) {
	engine := newEngine()
	var failure *C.wasmtime_error_t
	ptr := do(engine, &failure)
	if failure != nil {
		C.wasm_engine_delete(engine)
		return nil, errors.New(message(failure))
	}
	return &Component{engine: engine, ptr: ptr}, nil
}

// Close frees the component, which must not be used any more.
func (c *Component) Close() {
	C.wasmtime_component_delete(c.ptr)
	C.wasm_engine_delete(c.engine)
}

// Serialize returns the machine code.
func (c *Component) Serialize() ([]byte, error) {
	var code C.wasm_name_t
	if failure := C.wasmtime_component_serialize(c.ptr, &code); failure != nil {
		return nil, errors.New(message(failure))
	}
	defer C.wasm_byte_vec_delete(&code)
	return C.GoBytes(unsafe.Pointer(code.data), C.int(code.size)), nil
}

// message returns the text of an error and frees it.
func message(failure *C.wasmtime_error_t) string {
	var text C.wasm_name_t
	C.wasmtime_error_message(failure, &text)
	C.wasmtime_error_delete(failure)
	defer C.wasm_byte_vec_delete(&text)
	return C.GoStringN(text.data, C.int(text.size))
}

func bytePtr(b []byte) *C.uint8_t { return (*C.uint8_t)(unsafe.SliceData(b)) }

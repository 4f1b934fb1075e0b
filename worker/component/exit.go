package component

/*
#include <stdlib.h>
#include "capi.h"

// leave returns an error, which unwinds the guest's stack.
static wasmtime_error_t *leave(int *status, int code) {
	*status = code;
	return wasmtime_error_new("exit");
}

static wasmtime_error_t *exit_result(void *status, wasmtime_context_t *context, const wasmtime_component_func_type_t *type,
	wasmtime_component_val_t *args, size_t count, wasmtime_component_val_t *results, size_t results_count) {
	return leave(status, args[0].of.result.is_ok ? 0 : 1);
}

static wasmtime_error_t *exit_code(void *status, wasmtime_context_t *context, const wasmtime_component_func_type_t *type,
	wasmtime_component_val_t *args, size_t count, wasmtime_component_val_t *results, size_t results_count) {
	return leave(status, args[0].of.u8);
}

static wasmtime_error_t *define_exit(wasmtime_component_linker_t *linker, const char *interface, size_t size, int *status) {
	wasmtime_component_linker_instance_t *root = wasmtime_component_linker_root(linker), *instance = NULL;
	wasmtime_error_t *err = wasmtime_component_linker_instance_add_instance(root, interface, size, &instance);
	if (err == NULL)
		err = wasmtime_component_linker_instance_add_func(instance, "exit", 4, exit_result, status, NULL);
	if (err == NULL)
		err = wasmtime_component_linker_instance_add_func(instance, "exit-with-code", 14, exit_code, status, NULL);
	if (instance != NULL)
		wasmtime_component_linker_instance_delete(instance);
	wasmtime_component_linker_instance_delete(root);
	return err;
}
*/
import "C"

import (
	"errors"
	"regexp"
	"unsafe"
)

var exitInterface = regexp.MustCompile(`^wasi:cli/exit@0\.2\.\d+$`)

// notExited is a status that no guest can exit with.
const notExited = -1

// defineExit replaces wasmtime's wasi:cli/exit, which lacks exit-with-code as long as that is marked
// unstable. Without that function a guest can only succeed or fail with 1
// (https://github.com/WebAssembly/WASI/blob/main/wasip2/cli/exit.wit).
func (p *Program) defineExit() error {
	for name := range p.component.imports() {
		if !exitInterface.MatchString(name) {
			continue
		}
		text := C.CString(name)
		failure := C.define_exit(p.linker, text, C.size_t(len(name)), p.status)
		C.free(unsafe.Pointer(text))
		if failure != nil {
			return errors.New(message(failure))
		}
	}
	return nil
}

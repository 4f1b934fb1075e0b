package component

/*
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "capi.h"

static const char denied[] = "HTTP-request-denied";

// drop drops a resource that the guest has passed: the guest no longer owns it.
static wasmtime_error_t *drop(wasmtime_context_t *context, const wasmtime_component_val_t *value) {
	if (value != NULL && value->kind == VAL_OPTION)
		value = value->of.option;
	if (value == NULL || value->kind != VAL_RESOURCE)
		return NULL;
	return wasmtime_component_resource_any_drop(context, value->of.resource);
}

// deny drops the request and its options, and returns the interface's error HTTP-request-denied.
static wasmtime_error_t *deny(void *said, wasmtime_context_t *context, const wasmtime_component_func_type_t *type,
	wasmtime_component_val_t *args, size_t count, wasmtime_component_val_t *results, size_t results_count) {
	for (size_t i = 0; i < count; i++) {
		wasmtime_error_t *err = drop(context, &args[i]);
		if (err != NULL)
			return err;
	}
	if (!*(int *)said)
		dprintf(2, "wasi:http: the request is denied (%s): no setting of this version grants a Wasm container a network\n", denied);
	*(int *)said = 1;
	wasmtime_component_val_t code = { .kind = VAL_VARIANT };
	wasm_byte_vec_new(&code.of.variant.discriminant, strlen(denied), denied);
	results[0] = (wasmtime_component_val_t){ .kind = VAL_RESULT };
	results[0].of.result.val = wasmtime_component_val_new(&code);
	return NULL;
}

static wasmtime_error_t *define_denial(wasmtime_component_linker_t *linker, const char *interface, size_t size, int *said) {
	wasmtime_component_linker_instance_t *root = wasmtime_component_linker_root(linker), *instance = NULL;
	wasmtime_error_t *err = wasmtime_component_linker_instance_add_instance(root, interface, size, &instance);
	if (err == NULL)
		err = wasmtime_component_linker_instance_add_func(instance, "handle", 6, deny, said, NULL);
	if (instance != NULL)
		wasmtime_component_linker_instance_delete(instance);
	wasmtime_component_linker_instance_delete(root);
	return err;
}
*/
import "C"

import (
	"errors"
	"strings"
	"unsafe"
)

// handler is the prefix of the name of the interface that sends requests, in any version.
const handler = "wasi:http/outgoing-handler"

// defineHTTP defines wasi:http for a component that imports it: the component can make requests, but cannot
// send them. Some compilers add the interface to every component. wasmtime's own outgoing-handler would open
// sockets. It is in the linker under the version that wasmtime knows, so defineHTTP redefines every name
// under which the component imports it.
func (p *Program) defineHTTP() error {
	if !p.component.importsHTTP() {
		return nil
	}
	if failure := C.wasmtime_component_linker_add_wasi_http(p.linker); failure != nil {
		return errors.New(message(failure))
	}
	C.wasmtime_context_set_wasi_http(p.context)
	for name := range p.component.imports() {
		if !strings.HasPrefix(name, handler) {
			continue
		}
		text := C.CString(name)
		failure := C.define_denial(p.linker, text, C.size_t(len(name)), p.denied)
		C.free(unsafe.Pointer(text))
		if failure != nil {
			return errors.New(message(failure))
		}
	}
	return nil
}

func (c *Component) importsHTTP() bool {
	for name := range c.imports() {
		if strings.HasPrefix(name, "wasi:http/") {
			return true
		}
	}
	return false
}

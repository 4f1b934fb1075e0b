// The functions in a linker of wasmtime's.

#include "link.h"

#include <stdio.h>

#include "calls.h"
#include "capi.h"

static const char module[] = "wasi_snapshot_preview1";

#define NAME(name, params) { #name, params },
static const struct {
	const char *name, *params;
} functions[] = { FUNCTIONS(NAME) };
#undef NAME

enum { COUNT = sizeof functions / sizeof functions[0] };

// see finds the guest's memory, which may have moved since the last call. A guest is one instance,
// so the memory that it exports is always the same. It is never a shared one: the engine has none.
static void see(struct guest *g, wasmtime_caller_t *caller) {
	if (!g->found) {
		wasmtime_extern_t item;
		if (!wasmtime_caller_export_get(caller, "memory", 6, &item))
			return;
		if (item.kind != EXTERN_MEMORY) {
			wasmtime_extern_delete(&item);
			return;
		}
		g->exported = item.of.memory;
		g->found = true;
	}
	const wasmtime_context_t *context = wasmtime_caller_context(caller);
	g->memory = wasmtime_memory_data(context, &g->exported);
	g->size = wasmtime_memory_data_size(context, &g->exported);
}

// ended returns the trap that ends a guest.
static wasm_trap_t *ended(const char *name, int result) {
	char message[100];
	int length = result == EXIT ? snprintf(message, sizeof message, "%s", name)
		: snprintf(message, sizeof message, "the guest gave %s a place that is outside of its memory", name);
	return wasmtime_trap_new(message, (size_t)length);
}

// Wasm passes what the function's type says, so v has room for all parameters, and for the result.
#define ENTER(name, params) \
	static wasm_trap_t *enter_##name(void *data, wasmtime_caller_t *caller, wasmtime_val_raw_t *v, size_t count) { \
		(void)count; \
		see(data, caller); \
		int result = call_##name(data, v); \
		if (result < 0) \
			return ended(#name, result); \
		v[0].i64 = 0; \
		v[0].i32 = result; \
		return NULL; \
	}
FUNCTIONS(ENTER)
#undef ENTER

#define CALLBACK(name, params) enter_##name,
static const wasmtime_func_unchecked_callback_t callbacks[] = { FUNCTIONS(CALLBACK) };
#undef CALLBACK

// type_of returns the type of the function with that number.
static wasm_functype_t *type_of(int i) {
	wasm_valtype_t *types[16];
	wasm_valtype_vec_t params, results;
	size_t count = 0;
	for (const char *p = functions[i].params; *p != 0; p++)
		types[count++] = wasm_valtype_new(*p == 'l' ? KIND_I64 : KIND_I32);
	wasm_valtype_vec_new(&params, count, types);
	count = 0;
	if (callbacks[i] != enter_proc_exit)
		types[count++] = wasm_valtype_new(KIND_I32);
	wasm_valtype_vec_new(&results, count, types);
	return wasm_functype_new(&params, &results);
}

const char *guest_define(struct guest *g, void *linker) {
	for (int i = 0; i < COUNT; i++) {
		const char *name = functions[i].name;
		wasm_functype_t *type = type_of(i);
		wasmtime_error_t *error = wasmtime_linker_define_func_unchecked(
			linker, module, sizeof module - 1, name, strlen(name), type, callbacks[i], g, NULL);
		wasm_functype_delete(type);
		if (error != NULL) {
			wasmtime_error_delete(error);
			return name;
		}
	}
	return NULL;
}

bool provides(const char *name) {
	for (int i = 0; i < COUNT; i++)
		if (strcmp(functions[i].name, name) == 0)
			return true;
	return false;
}

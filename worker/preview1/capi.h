// The part of wasmtime's C API that defines host functions, as wasmtime 44 declares it in
// wasmtime.h and the files that it includes. TestHeaders compares the two.

#include <stdbool.h>

#include "capitypes.h"

typedef struct wasm_valtype_t wasm_valtype_t;
typedef struct wasm_functype_t wasm_functype_t;
typedef struct wasm_trap_t wasm_trap_t;
typedef struct wasmtime_error wasmtime_error_t;
typedef struct wasmtime_context wasmtime_context_t;
typedef struct wasmtime_caller wasmtime_caller_t;
typedef struct wasmtime_linker wasmtime_linker_t;

wasm_valtype_t *wasm_valtype_new(uint8_t kind);
void wasm_valtype_vec_new(wasm_valtype_vec_t *, size_t, wasm_valtype_t *const []);
wasm_functype_t *wasm_functype_new(wasm_valtype_vec_t *params, wasm_valtype_vec_t *results); // takes both
void wasm_functype_delete(wasm_functype_t *);

typedef wasm_trap_t *(*wasmtime_func_unchecked_callback_t)(void *, wasmtime_caller_t *, wasmtime_val_raw_t *, size_t);

wasmtime_error_t *wasmtime_linker_define_func_unchecked(
	wasmtime_linker_t *, const char *module, size_t, const char *name, size_t, const wasm_functype_t *,
	wasmtime_func_unchecked_callback_t, void *data, void (*finalizer)(void *));
bool wasmtime_caller_export_get(wasmtime_caller_t *, const char *name, size_t, wasmtime_extern_t *);
wasmtime_context_t *wasmtime_caller_context(wasmtime_caller_t *);
void wasmtime_extern_delete(wasmtime_extern_t *);
uint8_t *wasmtime_memory_data(const wasmtime_context_t *, const wasmtime_memory_t *);
size_t wasmtime_memory_data_size(const wasmtime_context_t *, const wasmtime_memory_t *);
wasm_trap_t *wasmtime_trap_new(const char *, size_t);
void wasmtime_error_delete(wasmtime_error_t *);

// Package engine configures wasmtime, for modules and for components. Compiling and running must use the same
// configuration. The cache keys compiled code by the worker's binary, so a change here makes new entries.
package engine

/*
#cgo LDFLAGS: -Wl,--unresolved-symbols=ignore-all
#include "capi.h"

static void configure(wasm_config_t *config) {
	// Backtraces of guests follow frame pointers. Only native debuggers need the native unwind
	// tables, and every load would parse them.
	wasmtime_config_native_unwind_info_set(config, false);

	// Compilers for WASI use these features, some only with an option.
	wasmtime_config_wasm_multi_value_set(config, true);
	wasmtime_config_wasm_bulk_memory_set(config, true);
	wasmtime_config_wasm_reference_types_set(config, true);
	wasmtime_config_wasm_simd_set(config, true);
	wasmtime_config_wasm_tail_call_set(config, true);
	// Exceptions are garbage-collected objects. The instructions of the GC proposal (wasm_gc) stay off.
	wasmtime_config_gc_support_set(config, true);
	wasmtime_config_wasm_exceptions_set(config, true);

	wasmtime_config_wasm_threads_set(config, false);
	wasmtime_config_shared_memory_set(config, false);
	wasmtime_config_wasm_memory64_set(config, false);
	wasmtime_config_wasm_multi_memory_set(config, false);
	wasmtime_config_wasm_relaxed_simd_set(config, false);
	wasmtime_config_wasm_gc_set(config, false);
	wasmtime_config_wasm_function_references_set(config, false);
	wasmtime_config_wasm_wide_arithmetic_set(config, false);
	wasmtime_config_wasm_custom_page_sizes_set(config, false);
	wasmtime_config_wasm_stack_switching_set(config, false);
	wasmtime_config_wasm_component_model_map_set(config, false);
	// Concurrent tasks of components (WASI 0.3).
	wasmtime_config_concurrency_support_set(config, false);
}
*/
import "C"

import (
	"unsafe"

	wasmtime "github.com/bytecodealliance/wasmtime-go/v44"
)

// New returns an engine for modules.
func New() *wasmtime.Engine {
	config := wasmtime.NewConfig()
	// Use the only field of config directly: wasmtime-go has no setters for half of the settings.
	Configure(*(*unsafe.Pointer)(unsafe.Pointer(config)))
	return wasmtime.NewEngineWithConfig(config) // takes config
}

// Configure sets up config, a wasm_config_t of the C API, for a node's engine.
//
// A guest may use only those parts of WebAssembly that compilers for WASI use: every other proposal is code
// of the engine that only a hostile module would reach. docs/security.md lists the purpose of each of them.
func Configure(config unsafe.Pointer) {
	C.configure((*C.wasm_config_t)(config))
}

// The types and values in capi.h, as far as they are used. TestHeaders compares them with wasmtime's,
// and compiles capi.h with wasmtime's in their place.

#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct wasm_config_t wasm_config_t;
typedef struct wasm_engine_t wasm_engine_t;
typedef struct wasi_config_t wasi_config_t;
typedef struct wasmtime_store wasmtime_store_t;
typedef struct wasmtime_context wasmtime_context_t;
typedef struct wasmtime_error wasmtime_error_t;

typedef struct wasmtime_component_t wasmtime_component_t;
typedef struct wasmtime_component_export_index_t wasmtime_component_export_index_t;
typedef struct wasmtime_component_type_t wasmtime_component_type_t;
typedef struct wasmtime_component_instance_type wasmtime_component_instance_type_t;
typedef struct wasmtime_component_func_type_t wasmtime_component_func_type_t;
typedef struct wasmtime_component_linker_t wasmtime_component_linker_t;
typedef struct wasmtime_component_linker_instance_t wasmtime_component_linker_instance_t;
typedef struct wasmtime_component_resource_any wasmtime_component_resource_any_t;

// wasm.h, as wasm_byte_vec_t too
typedef struct {
	size_t size;
	char *data;
} wasm_name_t;

typedef struct {
	size_t size;
	void **data;
} wasm_frame_vec_t;

// wasmtime/component/types
enum { ITEM_INSTANCE = 1, ITEM_FUNC = 3 };

typedef struct {
	uint8_t kind;
	union {
		wasmtime_component_instance_type_t *instance;
		wasmtime_component_func_type_t *func;
		uint64_t room[4]; // at least as large as the largest member of wasmtime's union
	} of;
} wasmtime_component_item_t;

typedef struct {
	uint8_t kind;
	uint64_t room[2];
} wasmtime_component_valtype_t;

// wasmtime/component/val.h
enum { VAL_U8 = 2, VAL_VARIANT = 16, VAL_OPTION = 18, VAL_RESULT = 19, VAL_RESOURCE = 21 };

typedef struct wasmtime_component_val {
	uint8_t kind;
	union {
		uint8_t u8;
		struct {
			bool is_ok;
			struct wasmtime_component_val *val;
		} result;
		struct {
			wasm_name_t discriminant;
			struct wasmtime_component_val *val;
		} variant;
		struct wasmtime_component_val *option;
		wasmtime_component_resource_any_t *resource;
		uint64_t room[3];
	} of;
} wasmtime_component_val_t;

// wasmtime/component/instance.h, func.h
typedef struct {
	uint64_t store_id;
	uint32_t index;
} wasmtime_component_instance_t;

typedef struct {
	struct {
		uint64_t store_id;
		uint32_t index;
	};
	uint32_t index2;
} wasmtime_component_func_t;

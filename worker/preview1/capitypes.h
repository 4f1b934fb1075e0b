// The types and values of wasmtime's C API that are used here, as wasmtime 44 declares them.
// TestHeaders compares them with its headers.

#ifndef CAPITYPES_H
#define CAPITYPES_H

#include <stddef.h>
#include <stdint.h>

enum { KIND_I32 = 0, KIND_I64 = 1 };
enum { EXTERN_MEMORY = 3 };

typedef struct {
	size_t size;
	struct wasm_valtype_t **data;
} wasm_valtype_vec_t;

typedef struct {
	struct {
		uint64_t store_id;
		uint32_t private1;
	};
	uint32_t private2;
} wasmtime_memory_t;

typedef struct {
	uint8_t kind;
	union {
		wasmtime_memory_t memory;
		uint64_t room[3];
	} of;
} wasmtime_extern_t;

typedef union {
	int32_t i32;
	int64_t i64;
	uint8_t v128[16];
	void *align;
} wasmtime_val_raw_t;

#endif

// Compares our declarations of wasmtime's C API with its own headers. It is compiled and never run.

#include <stddef.h>
#include <wasmtime.h>

// Our types, under other names. Those without members must be the same as wasmtime's.
#define wasm_name_t our_name
#define wasm_frame_vec_t our_frames
#define wasmtime_component_item_t our_item
#define wasmtime_component_valtype_t our_valtype
#define wasmtime_component_val our_val_tag
#define wasmtime_component_val_t our_val
#define wasmtime_component_instance_t our_instance
#define wasmtime_component_func_t our_func
#include "../../component/capitypes.h"
#undef wasm_name_t
#undef wasm_frame_vec_t
#undef wasmtime_component_item_t
#undef wasmtime_component_valtype_t
#undef wasmtime_component_val
#undef wasmtime_component_val_t
#undef wasmtime_component_instance_t
#undef wasmtime_component_func_t

#define wasm_valtype_vec_t our_valtypes
#define wasmtime_memory_t our_memory
#define wasmtime_extern_t our_extern
#define wasmtime_val_raw_t our_raw
#include "../../preview1/capitypes.h"
#undef wasm_valtype_vec_t
#undef wasmtime_memory_t
#undef wasmtime_extern_t
#undef wasmtime_val_raw_t

// Our functions, with wasmtime's types: the compiler refuses a second declaration that differs.
#include "../../component/capi.h"
#include "../../preview1/capi.h"
#include "../capi.h"

#define SAME_SIZE(ours, its) _Static_assert(sizeof(ours) == sizeof(its), #its " has another size")
#define SAME_PLACE(ours, mine, its, member) \
	_Static_assert(offsetof(ours, mine) == offsetof(its, member), #its "." #member " is elsewhere"); \
	_Static_assert(sizeof(((ours *)0)->mine) == sizeof(((its *)0)->member), #its "." #member " has another size")
#define SAME_VALUE(ours, its) _Static_assert((int)(ours) == (int)(its), #its " has another value")

SAME_SIZE(our_name, wasm_name_t);
SAME_PLACE(our_name, size, wasm_name_t, size);
SAME_PLACE(our_name, data, wasm_name_t, data);

SAME_SIZE(our_frames, wasm_frame_vec_t);
SAME_PLACE(our_frames, size, wasm_frame_vec_t, size);
SAME_PLACE(our_frames, data, wasm_frame_vec_t, data);

SAME_PLACE(our_item, kind, wasmtime_component_item_t, kind);
SAME_PLACE(our_item, of.instance, wasmtime_component_item_t, of.component_instance);
SAME_PLACE(our_item, of.func, wasmtime_component_item_t, of.component_func);
_Static_assert(sizeof(our_item) >= sizeof(wasmtime_component_item_t), "an item has no room");
SAME_VALUE(ITEM_INSTANCE, WASMTIME_COMPONENT_ITEM_COMPONENT_INSTANCE);
SAME_VALUE(ITEM_FUNC, WASMTIME_COMPONENT_ITEM_COMPONENT_FUNC);

_Static_assert(sizeof(our_valtype) >= sizeof(wasmtime_component_valtype_t), "the type of a value has no room");

SAME_SIZE(our_val, wasmtime_component_val_t);
SAME_PLACE(our_val, kind, wasmtime_component_val_t, kind);
SAME_PLACE(our_val, of.u8, wasmtime_component_val_t, of.u8);
SAME_PLACE(our_val, of.result.is_ok, wasmtime_component_val_t, of.result.is_ok);
SAME_PLACE(our_val, of.result.val, wasmtime_component_val_t, of.result.val);
SAME_PLACE(our_val, of.variant.discriminant, wasmtime_component_val_t, of.variant.discriminant);
SAME_PLACE(our_val, of.variant.val, wasmtime_component_val_t, of.variant.val);
SAME_PLACE(our_val, of.option, wasmtime_component_val_t, of.option);
SAME_PLACE(our_val, of.resource, wasmtime_component_val_t, of.resource);
SAME_VALUE(VAL_U8, WASMTIME_COMPONENT_U8);
SAME_VALUE(VAL_VARIANT, WASMTIME_COMPONENT_VARIANT);
SAME_VALUE(VAL_OPTION, WASMTIME_COMPONENT_OPTION);
SAME_VALUE(VAL_RESULT, WASMTIME_COMPONENT_RESULT);
SAME_VALUE(VAL_RESOURCE, WASMTIME_COMPONENT_RESOURCE);

SAME_SIZE(our_instance, wasmtime_component_instance_t);
SAME_SIZE(our_func, wasmtime_component_func_t);

SAME_SIZE(our_valtypes, wasm_valtype_vec_t);
SAME_PLACE(our_valtypes, size, wasm_valtype_vec_t, size);
SAME_PLACE(our_valtypes, data, wasm_valtype_vec_t, data);
SAME_VALUE(KIND_I32, WASM_I32);
SAME_VALUE(KIND_I64, WASM_I64);

SAME_SIZE(our_memory, wasmtime_memory_t);
SAME_SIZE(our_extern, wasmtime_extern_t);
SAME_PLACE(our_extern, kind, wasmtime_extern_t, kind);
SAME_PLACE(our_extern, of.memory, wasmtime_extern_t, of.memory);
SAME_VALUE(EXTERN_MEMORY, WASMTIME_EXTERN_MEMORY);

SAME_SIZE(our_raw, wasmtime_val_raw_t);
SAME_PLACE(our_raw, i32, wasmtime_val_raw_t, i32);
SAME_PLACE(our_raw, i64, wasmtime_val_raw_t, i64);

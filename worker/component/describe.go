package component

/*
#include "capi.h"

// An item that a component imports or exports, with the properties that we need.
typedef struct {
	const char *name;
	size_t size;
	uint8_t kind;
	bool callable; // a function without parameters, not async
} item_t;

static item_t look(const char *name, size_t size, wasmtime_component_item_t *item) {
	item_t found = { name, size, item->kind, false };
	if (item->kind == ITEM_FUNC)
		found.callable = wasmtime_component_func_type_param_count(item->of.func) == 0 && !wasmtime_component_func_type_async(item->of.func);
	return found;
}

static item_t import_nth(const wasmtime_component_type_t *type, const wasm_engine_t *engine, size_t nth) {
	const char *name = NULL;
	size_t size = 0;
	wasmtime_component_item_t item;
	if (!wasmtime_component_type_import_nth(type, engine, nth, &name, &size, &item))
		return (item_t){ NULL, 0, 0, false };
	item_t found = look(name, size, &item);
	wasmtime_component_item_delete(&item);
	return found;
}

// If the export is an instance, *members is the number of its exports. The caller deletes *item.
static item_t export_nth(const wasmtime_component_type_t *type, const wasm_engine_t *engine, size_t nth,
	wasmtime_component_item_t *item, size_t *members) {
	const char *name = NULL;
	size_t size = 0;
	*members = 0;
	if (!wasmtime_component_type_export_nth(type, engine, nth, &name, &size, item))
		return (item_t){ NULL, 0, 0, false };
	if (item->kind == ITEM_INSTANCE)
		*members = wasmtime_component_instance_type_export_count(item->of.instance, engine);
	return look(name, size, item);
}

static item_t member_nth(const wasmtime_component_item_t *instance, const wasm_engine_t *engine, size_t nth) {
	const char *name = NULL;
	size_t size = 0;
	wasmtime_component_item_t item;
	if (!wasmtime_component_instance_type_export_nth(instance->of.instance, engine, nth, &name, &size, &item))
		return (item_t){ NULL, 0, 0, false };
	item_t found = look(name, size, &item);
	wasmtime_component_item_delete(&item);
	return found;
}
*/
import "C"

import (
	"iter"
	"regexp"

	"github.com/wasmshim/containerd-shim-wasm/wasm/world"
)

// Start is our name for the function that runs a command, as in modules: run of the interface wasi:cli/run.
const Start = "_start"

// runInterface is the interface that a command component exports, in any version of WASI 0.2
// (https://github.com/WebAssembly/WASI/blob/main/wasip2/cli/run.wit).
var runInterface = regexp.MustCompile(`^wasi:cli/run@0\.2\.\d+$`)

// function is an exported function without parameters.
type function struct {
	name             string // as users write it
	instance, member string // its place; instance is empty for a function of the component itself
}

// Functions returns the names of the exported functions without parameters: Start for a command's,
// INTERFACE#FUNCTION for one of an exported interface.
func (c *Component) Functions() []string {
	var names []string
	for _, f := range c.functions() {
		names = append(names, f.name)
	}
	return names
}

func (c *Component) functions() []function {
	componentType := C.wasmtime_component_type(c.ptr)
	defer C.wasmtime_component_type_delete(componentType)
	var found []function
	for i := range C.wasmtime_component_type_export_count(componentType, c.engine) {
		var item C.wasmtime_component_item_t
		var members C.size_t
		export := C.export_nth(componentType, c.engine, i, &item, &members)
		name := C.GoStringN(export.name, C.int(export.size))
		if export.callable {
			found = append(found, function{name: name, member: name})
		}
		for k := range members {
			if member := C.member_nth(&item, c.engine, k); member.callable {
				found = append(found, inInterface(name, C.GoStringN(member.name, C.int(member.size))))
			}
		}
		if export.name != nil {
			C.wasmtime_component_item_delete(&item)
		}
	}
	return found
}

func inInterface(instance, member string) function {
	f := function{name: instance + "#" + member, instance: instance, member: member}
	if member == "run" && runInterface.MatchString(instance) {
		f.name = Start
	}
	return f
}

// Unprovided returns the names of the component's imports that no guest gets.
func (c *Component) Unprovided() []string {
	var names []string
	for name, isInterface := range c.imports() {
		if !isInterface || !world.IsProvided(name) {
			names = append(names, name)
		}
	}
	return names
}

// imports yields the name of each import of the component, and whether it is an interface.
func (c *Component) imports() iter.Seq2[string, bool] {
	return func(yield func(string, bool) bool) {
		componentType := C.wasmtime_component_type(c.ptr)
		defer C.wasmtime_component_type_delete(componentType)
		for i := range C.wasmtime_component_type_import_count(componentType, c.engine) {
			item := C.import_nth(componentType, c.engine, i)
			if !yield(C.GoStringN(item.name, C.int(item.size)), item.kind == C.ITEM_INSTANCE) {
				return
			}
		}
	}
}

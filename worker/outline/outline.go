// Package outline reads the imports and the exported functions of a core module, without compiling or
// validating it: they are in the sections before its code
// (https://webassembly.github.io/spec/core/binary/modules.html).
//
// It knows the features that package engine switches on. If it finds anything else, it returns an error,
// which does not mean that the module is invalid: the engine decides that. It never holds more in memory than
// the size of the sections that it reads.
package outline

import (
	"errors"
	"fmt"

	"github.com/wasmshim/containerd-shim-wasm/wasm"
)

// Module is the outline of a core module.
type Module struct {
	// Imports are in the binary's order.
	Imports []Import
	// Functions are the names of the exported functions that take no arguments, in the
	// binary's order.
	Functions []string
}

// Import is an import of a module, by its two names.
type Import struct{ Module, Name string }

// The ids of the sections that matter. All of them come before the code.
const (
	customSection   = 0
	typeSection     = 1
	importSection   = 2
	functionSection = 3
	exportSection   = 7
	codeSection     = 10
)

// The kinds of imports and exports.
const (
	kindFunction = iota
	kindTable
	kindMemory
	kindGlobal
	kindTag
)

// Read returns the outline of a module.
func Read(module []byte) (Module, error) {
	if !wasm.IsModule(module) {
		return Module{}, errors.New("outline: it is no core module of version 1")
	}
	r := &reader{left: module[wasm.HeadSize:]}
	o := outline{}
	for len(r.left) > 0 && r.err == nil {
		id := r.byte()
		section := &reader{left: r.bytes(r.u32())}
		if id == codeSection {
			break
		}
		o.read(id, section)
		if section.err == nil && id != customSection && len(section.left) > 0 && o.knows(id) {
			section.fail("bytes are left over in section %d", id)
		}
		if r.err == nil {
			r.err = section.err
		}
	}
	if r.err != nil {
		return Module{}, fmt.Errorf("outline: %w", r.err)
	}
	return o.module, nil
}

// outline is the part of a module that has been read so far.
type outline struct {
	module Module
	// noArguments has, for each type, whether it takes no arguments. functions has the type of each function.
	noArguments []bool
	functions   []uint32
}

func (o *outline) knows(id byte) bool {
	switch id {
	case typeSection, importSection, functionSection, exportSection:
		return true
	}
	return false
}

func (o *outline) read(id byte, r *reader) {
	if !o.knows(id) {
		return
	}
	for count := r.u32(); count > 0 && r.err == nil; count-- {
		switch id {
		case typeSection:
			o.noArguments = append(o.noArguments, r.functionType())
		case importSection:
			o.imported(r)
		case functionSection:
			o.functions = append(o.functions, r.u32())
		case exportSection:
			o.exported(r)
		}
	}
}

func (o *outline) imported(r *reader) {
	i := Import{Module: r.name(), Name: r.name()}
	switch kind := r.byte(); kind {
	case kindFunction:
		o.functions = append(o.functions, r.u32())
	case kindTable:
		r.valueType()
		r.limits()
	case kindMemory:
		r.limits()
	case kindGlobal:
		r.valueType()
		r.byte()
	case kindTag:
		r.byte()
		r.u32()
	default:
		r.fail("an import is of the unknown kind %d", kind)
	}
	o.module.Imports = append(o.module.Imports, i)
}

func (o *outline) exported(r *reader) {
	name, kind, index := r.name(), r.byte(), r.u32()
	if r.err != nil || kind != kindFunction {
		return
	}
	if int64(index) >= int64(len(o.functions)) || int64(o.functions[index]) >= int64(len(o.noArguments)) {
		r.fail("export %q is a function that there is not", name)
		return
	}
	if o.noArguments[o.functions[index]] {
		o.module.Functions = append(o.module.Functions, name)
	}
}

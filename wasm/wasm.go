// Package wasm recognises a file by its first bytes: a module, a component, or machine code that wasmtime has
// made of either. All code that must agree on this uses the package. It reads only the bytes that it is
// given, and depends on nothing.
package wasm

import "bytes"

// The first bytes of a binary: a magic number, a version, and the layer, which distinguishes components from
// modules.
const (
	Magic = "\x00asm"
	// ModuleHeader starts each module
	// (https://webassembly.github.io/spec/core/binary/modules.html#binary-module).
	ModuleHeader = Magic + "\x01\x00\x00\x00"
	// ComponentHeader starts a component of the format's current version
	// (https://github.com/WebAssembly/component-model/blob/main/design/mvp/Binary.md).
	ComponentHeader = Magic + "\x0d\x00\x01\x00"

	componentLayer = "\x01\x00"
)

// HeadSize is how many first bytes are enough to recognise a module or a component.
const HeadSize = len(ModuleHeader)

// IsModule reports whether head starts a module.
func IsModule(head []byte) bool { return bytes.HasPrefix(head, []byte(ModuleHeader)) }

// IsComponent reports whether head starts a component of any version of the format.
func IsComponent(head []byte) bool {
	return len(head) >= HeadSize && string(head[:4]) == Magic && string(head[6:8]) == componentLayer
}

// The marks of an ELF file that wasmtime made (obj.rs in wasmtime's crates/environ/src).
const (
	elfMagic      = "\x7fELF"
	elfABI        = 7    // offset of the ABI in e_ident
	elfFlags      = 0x30 // offset of the low byte of e_flags in ELF64
	abiWasmtime   = 200  // ELFOSABI_WASMTIME
	flagComponent = 2    // EF_WASMTIME_COMPONENT
)

// ELFHeadSize is how many first bytes of machine code are enough to recognise its source: the header of
// ELF64.
const ELFHeadSize = 64

// IsCompiled reports whether head starts machine code that wasmtime has made.
func IsCompiled(head []byte) bool {
	return IsELF(head) && len(head) > elfABI && head[elfABI] == abiWasmtime
}

// IsCompiledComponent reports whether head, [ELFHeadSize] bytes, starts machine code that wasmtime has made
// of a component.
func IsCompiledComponent(head []byte) bool {
	return IsCompiled(head) && len(head) > elfFlags && head[elfFlags] == flagComponent
}

// IsELF reports whether head starts an ELF file of any kind.
func IsELF(head []byte) bool { return bytes.HasPrefix(head, []byte(elfMagic)) }

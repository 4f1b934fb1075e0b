// Package wasm tells by its first bytes what WebAssembly is: a module, a component, or the machine code
// that wasmtime has made of either. All that must agree on that ask it. It reads no more than it is
// given, and depends on nothing.
package wasm

import "bytes"

// The first bytes of a binary: a magic number, a version, and the layer that tells components from modules.
const (
	Magic = "\x00asm"
	// ModuleHeader starts each module
	// (https://webassembly.github.io/spec/core/binary/modules.html#binary-module).
	ModuleHeader = Magic + "\x01\x00\x00\x00"
	// ComponentHeader starts a component of the version of the format that there is
	// (https://github.com/WebAssembly/component-model/blob/main/design/mvp/Binary.md).
	ComponentHeader = Magic + "\x0d\x00\x01\x00"

	componentLayer = "\x01\x00"
)

// HeadSize is how many first bytes tell what a binary is.
const HeadSize = len(ModuleHeader)

// IsModule reports whether head starts a module.
func IsModule(head []byte) bool { return bytes.HasPrefix(head, []byte(ModuleHeader)) }

// IsComponent reports whether head starts a component, of whatever version of the format.
func IsComponent(head []byte) bool {
	return len(head) >= HeadSize && string(head[:4]) == Magic && string(head[6:8]) == componentLayer
}

// What marks an ELF file as wasmtime's (obj.rs in wasmtime's crates/environ/src).
const (
	elfMagic      = "\x7fELF"
	elfABI        = 7    // where e_ident names the ABI
	elfFlags      = 0x30 // where ELF64 has the low byte of e_flags
	abiWasmtime   = 200  // ELFOSABI_WASMTIME
	flagComponent = 2    // EF_WASMTIME_COMPONENT
)

// ELFHeadSize is how many first bytes of machine code tell what it was made of: the header of ELF64.
const ELFHeadSize = 64

// IsCompiled reports whether head starts machine code that wasmtime has made.
func IsCompiled(head []byte) bool {
	return IsELF(head) && len(head) > elfABI && head[elfABI] == abiWasmtime
}

// IsCompiledComponent reports whether head, [ELFHeadSize] bytes, starts what wasmtime has made of a component.
func IsCompiledComponent(head []byte) bool {
	return IsCompiled(head) && len(head) > elfFlags && head[elfFlags] == flagComponent
}

// IsELF reports whether head starts an ELF file, of any kind.
func IsELF(head []byte) bool { return bytes.HasPrefix(head, []byte(elfMagic)) }

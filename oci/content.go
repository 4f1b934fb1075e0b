package oci

import (
	"bytes"
	"fmt"
	"strings"

	"github.com/wasmshim/containerd-shim-wasm/wasm"
)

// HeadSize is how many of a blob's first bytes ContentOf looks at.
const HeadSize = 512

// Content is the kind of a blob by its first bytes, whatever its media type.
type Content string

// The kinds of content that layers hold, by intent or by mistake.
const (
	WasmModule    Content = "a WebAssembly module"
	WasmComponent Content = "a WebAssembly component"
	Precompiled   Content = "code that wasmtime has compiled"
	Gzip          Content = "gzip-compressed data"
	Zstd          Content = "zstd-compressed data"
	Zip           Content = "a zip archive"
	Tar           Content = "a tar archive"
	WasmText      Content = "WebAssembly's text format"
	Native        Content = "a native program"
	Empty         Content = "nothing"
	Unknown       Content = "data of an unknown kind"
)

// ContentOf returns the kind of a blob by its first HeadSize bytes, fewer if the blob has fewer.
func ContentOf(head []byte) Content {
	has := func(magic string) bool { return bytes.HasPrefix(head, []byte(magic)) }
	switch {
	case len(head) == 0:
		return Empty
	case wasm.IsModule(head):
		return WasmModule
	case wasm.IsComponent(head):
		return WasmComponent
	case wasm.IsCompiled(head):
		return Precompiled
	case wasm.IsELF(head):
		return Native
	case has("\x1f\x8b"):
		return Gzip
	case has("\x28\xb5\x2f\xfd"):
		return Zstd
	case has("PK\x03\x04"), has("PK\x05\x06"):
		return Zip
	case len(head) >= 262 && string(head[257:262]) == "ustar":
		return Tar
	case strings.HasPrefix(strings.TrimSpace(string(head)), "(module"), strings.HasPrefix(strings.TrimSpace(string(head)), "(component"):
		return WasmText
	}
	return Unknown
}

// CheckHead returns the kind of a layer by its first bytes, and an error if its media type says otherwise. A
// module, a component and compiled code all pass for Wasm here: the format does not decide which of them may
// run.
func (m Module) CheckHead(head []byte) (Content, error) {
	content := ContentOf(head)
	want := map[string][]Content{
		"":     {WasmModule, WasmComponent, Precompiled},
		"gzip": {Gzip}, "zstd": {Zstd}, "zip": {Zip},
	}
	for _, ok := range want[m.Compression] {
		if content == ok {
			return content, nil
		}
	}
	return content, fmt.Errorf("layer %s has the media type %s, but holds %s: push it again with the media type of what it holds", m, m.MediaType, content)
}

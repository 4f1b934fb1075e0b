package module

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/wasmshim/containerd-shim-wasm/oci"
)

// The first bytes of a module; a component's are as many
// (https://webassembly.github.io/spec/core/binary/modules.html#binary-module).
const (
	wasmMagic    = "\x00asm"
	moduleHeader = wasmMagic + "\x01\x00\x00\x00"
)

func checkMagic(file *os.File, path string) error {
	head := make([]byte, len(moduleHeader))
	n, err := file.ReadAt(head, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("read entry point %s: %w", path, err)
	}
	return checkHead(head[:n], "entry point "+path)
}

// checkHead judges the first bytes, as many as a module's header has or fewer, of what.
func checkHead(head []byte, what string) error {
	switch got := string(head); {
	case got == moduleHeader, oci.ContentOf(head) == oci.WasmComponent, oci.ContentOf(head) == oci.Precompiled:
		return nil // whether compiled code may run, its digest decides
	case got == "":
		return fmt.Errorf("%s is an empty file, not a WebAssembly module", what)
	case !strings.HasPrefix(got, wasmMagic):
		return fmt.Errorf(`%s is not a WebAssembly module: it starts with %q, not with "\0asm"`, what, got)
	}
	return fmt.Errorf("%s is a truncated WebAssembly module or one of an unknown version: it starts with %q", what, head)
}

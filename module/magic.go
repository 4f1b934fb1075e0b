package module

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/wasmshim/containerd-shim-wasm/wasm"
)

func checkMagic(file *os.File, path string) error {
	head := make([]byte, wasm.HeadSize)
	n, err := file.ReadAt(head, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("read entry point %s: %w", path, err)
	}
	return checkHead(head[:n], "entry point "+path)
}

// checkHead judges the first bytes, as many as a module's header has or fewer, of what.
func checkHead(head []byte, what string) error {
	switch got := string(head); {
	case wasm.IsModule(head), wasm.IsComponent(head), wasm.IsCompiled(head):
		return nil // whether compiled code may run, its digest decides
	case got == "":
		return fmt.Errorf("%s is an empty file, not a WebAssembly module", what)
	case !strings.HasPrefix(got, wasm.Magic):
		return fmt.Errorf(`%s is not a WebAssembly module: it starts with %q, not with "\0asm"`, what, got)
	}
	return fmt.Errorf("%s is a truncated WebAssembly module or one of an unknown version: it starts with %q", what, head)
}

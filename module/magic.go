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

// checkHead checks a file's first bytes, at most as many as a module's header has; what names the file in
// errors.
func checkHead(head []byte, what string) error {
	switch got := string(head); {
	case wasm.IsModule(head), wasm.IsComponent(head), wasm.IsCompiled(head):
		return nil // the digest decides whether compiled code may run
	case got == "":
		return fmt.Errorf("%s is an empty file, not a WebAssembly module", what)
	case !strings.HasPrefix(got, wasm.Magic):
		return fmt.Errorf(`%s is not a WebAssembly module: it starts with %q, not with "\0asm"`, what, got)
	}
	return fmt.Errorf("%s is a truncated WebAssembly module or one of an unknown version: it starts with %q", what, head)
}

package shim

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/wasmshim/containerd-shim-wasm/entrypoint"
	"github.com/wasmshim/containerd-shim-wasm/oci"
	"github.com/wasmshim/containerd-shim-wasm/sandbox"
)

// openModule opens what an entry point names: a file of the container or, if there
// is none, a Wasm layer of its image. errNative says that it is no Wasm and does not
// claim to be.
func (c *container) openModule(ctx context.Context, sb *sandbox.Sandbox, process *specs.Process, entry entrypoint.Point) (source, error) {
	from, err := openFile(ctx, sb, c.rootfs, process, entry)
	if !errors.Is(err, os.ErrNotExist) {
		return from, err
	}
	found, findErr := c.image(ctx)
	if findErr != nil {
		return source{}, fmt.Errorf("entry point %s is no file of the container; look for it among the image's layers: %w", entry.File, findErr)
	}
	layer, selectErr := found.Select(entry)
	if selectErr == nil {
		return openLayer(found, layer)
	}
	if local := entry.Local(process.Cwd); local != "" {
		if from, err := openFileAt(sb, c.rootfs, local, entry); !errors.Is(err, os.ErrNotExist) {
			return from, err
		}
	}
	if errors.Is(selectErr, oci.ErrNoModule) {
		return source{}, err
	}
	return source{}, fmt.Errorf("entry point %s is no file of the container: %w", entry.File, selectErr)
}

// openFile opens the file of the container that an entry point names.
func openFile(ctx context.Context, sb *sandbox.Sandbox, rootfs []sandbox.Mount, process *specs.Process, entry entrypoint.Point) (source, error) {
	path, err := sb.LookPath(ctx, entry, process.Cwd, process.Env)
	if err != nil {
		return source{}, notWasm(entry, err)
	}
	return openFileAt(sb, rootfs, path, entry)
}

func openFileAt(sb *sandbox.Sandbox, rootfs []sandbox.Mount, path string, entry entrypoint.Point) (source, error) {
	file, err := sb.OpenFile(path)
	if err != nil {
		return source{}, notWasm(entry, explainOpen(path, err))
	}
	if err := checkMagic(file, path); err != nil {
		file.Close()
		return source{}, notWasm(entry, err)
	}
	if stored, ok := sb.Stored(file, rootfs); ok {
		file.Close()
		return source{file: stored, stored: true}, nil
	}
	return source{file: file}, nil
}

// notWasm keeps the reason if the container claims to be Wasm.
func notWasm(entry entrypoint.Point, reason error) error {
	if entry.IsWasm() {
		return reason
	}
	return fmt.Errorf("%w: %w", errNative, reason)
}

func explainOpen(path string, err error) error {
	switch {
	case errors.Is(err, os.ErrNotExist):
		return fmt.Errorf("entry point %s does not exist in the container: check the image's entry point and the command: %w", path, err)
	case errors.Is(err, sandbox.ErrNotRegular):
		return fmt.Errorf("entry point %s is not a file: %w", path, err)
	}
	return fmt.Errorf("entry point %s cannot be read: %w", path, err)
}

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

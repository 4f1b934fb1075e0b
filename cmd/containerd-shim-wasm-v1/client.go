package main

import (
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"github.com/wasmshim/containerd-shim-wasm/module"
	"github.com/wasmshim/containerd-shim-wasm/sandbox"
)

// runClient becomes the program wasm-client, which keeps this process's input, output and environment; its
// exit status is ours. It returns only if that fails.
func runClient(args []string) error {
	f, err := openClient()
	if err != nil {
		return err
	}
	path := fmt.Sprintf("/proc/self/fd/%d", f.Fd())
	err = unix.Exec(path, append([]string{string(client)}, args...), os.Environ())
	return fmt.Errorf("run %s: %w", client, err)
}

// openClient places the program as the daemon does. Without the permission for that, as for an ordinary user
// who packs an image, it opens the program in memory.
func openClient() (*os.File, error) {
	placed, _, err := client.place(module.LibDir)
	if err == nil {
		defer placed.Close()
		if f, err := sandbox.Executable(placed); err == nil {
			return f, nil
		}
		return client.inMemory()
	}
	if !errors.Is(err, os.ErrPermission) && !errors.Is(err, unix.EROFS) && !errors.Is(err, unix.ENOSPC) {
		return nil, err
	}
	return client.inMemory()
}

// inMemory returns the program as a file without a name that disappears with its last user.
func (p program) inMemory() (*os.File, error) {
	content, _, _, err := p.open()
	if err != nil {
		return nil, err
	}
	defer content.Close()
	fd, err := unix.MemfdCreate(string(p), unix.MFD_CLOEXEC|unix.MFD_EXEC)
	if errors.Is(err, unix.EINVAL) { // Linux before 6.3 does not know MFD_EXEC
		fd, err = unix.MemfdCreate(string(p), unix.MFD_CLOEXEC)
	}
	if err != nil {
		return nil, fmt.Errorf("create a file in memory: %w", err)
	}
	f := os.NewFile(uintptr(fd), string(p))
	if _, err := io.Copy(f, content); err != nil {
		f.Close()
		return nil, fmt.Errorf("write %s into memory: %w", p, err)
	}
	return f, nil
}

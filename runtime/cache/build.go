package cache

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"

	"github.com/wasmshim/containerd-shim-wasm/runtime/control"
)

// build compiles into the part file and renames it; the index, which makes the
// entry valid, comes last. Whoever dies in between leaves files with names that
// the next holder of the lock writes over.
func (c *Cache) build(ctx context.Context, digest string, compile Compiler) error {
	part := c.path(digest, partSuffix)
	// A new file each time: an old one might still be open in a preparer that
	// outlived its daemon.
	if err := remove(part); err != nil {
		return fmt.Errorf("remove an unfinished entry: %w", err)
	}
	out, err := os.OpenFile(part, os.O_RDWR|os.O_CREATE|os.O_EXCL|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return fmt.Errorf("create cache entry: %w", err)
	}
	defer out.Close()
	defer os.Remove(part)
	module, err := compile(ctx, out)
	if err != nil {
		return err
	}
	return c.publish(digest, out, *module)
}

func (c *Cache) publish(digest string, out *os.File, module control.Module) error {
	// The order, and the flushes, keep a crash of the machine from leaving an
	// index that vouches for code that never reached the disk.
	if err := out.Chmod(0o444); err != nil {
		return fmt.Errorf("protect cache entry: %w", err)
	}
	if err := out.Sync(); err != nil {
		return fmt.Errorf("flush cache entry: %w", err)
	}
	if err := os.Rename(out.Name(), c.path(digest, codeSuffix)); err != nil {
		return fmt.Errorf("publish cache entry: %w", err)
	}
	id, err := identify(out)
	if err != nil {
		return err
	}
	return c.writeIndex(digest, index{Code: id, Module: module})
}

// remove is os.Remove that does not mind if there is nothing.
func remove(path string) error {
	if err := os.Remove(path); !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

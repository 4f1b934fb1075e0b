package cache

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/wasmshim/containerd-shim-wasm/module/filelock"
	"github.com/wasmshim/containerd-shim-wasm/worker/control"
)

// build compiles into a part file of its own and makes that the entry, unless another process has made one
// meanwhile. A process that dies leaves a part file that is not locked.
func (c *Cache) build(ctx context.Context, digest string, compile Compiler) (Entry, error) {
	if err := c.removeParts(digest); err != nil {
		return Entry{}, fmt.Errorf("remove an unfinished entry: %w", err)
	}
	out, err := filelock.CreateShared(c.dir, digest+".*"+partSuffix)
	if err != nil {
		return Entry{}, fmt.Errorf("create cache entry: %w", err)
	}
	defer out.Close()
	defer os.Remove(out.Name())
	module, err := compile(ctx, out)
	if err != nil {
		return Entry{}, err
	}
	lock, err := c.await(ctx, digest, lockSuffix)
	if err != nil {
		return Entry{}, err
	}
	defer lock.Release()
	if entry, err := c.lookup(digest); err == nil {
		return entry, nil
	}
	if err := c.publish(digest, out, *module); err != nil {
		return Entry{}, err
	}
	entry, err := c.lookup(digest)
	entry.Compiled = true
	return entry, err
}

// publish makes out the code of an entry. It writes the index last, because the index makes the entry valid.
// The caller holds the lock of the entry's files.
func (c *Cache) publish(digest string, out *os.File, module control.Module) error {
	// The order and the flushes prevent a crash of the machine from leaving an index for code that never
	// reached the disk.
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

// remove is os.Remove, but succeeds if the file does not exist.
func remove(path string) error {
	if err := os.Remove(path); !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

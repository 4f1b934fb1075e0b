package cache

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/wasmshim/containerd-shim-wasm/module/filelock"
)

// Put stores code, whose sha256 in hex is sum, outside of the cache for an image, and returns the path of the
// stored file. If the path is empty, the code stays where it is.
type Put func(ctx context.Context, code *os.File, sum string) (path string, image Image, err error)

// Move stores an entry's code with put. If the stored file holds the same bytes, the entry names it from then
// on. Processes that use the old file continue to. Move records under image.Key that the image was asked.
func (c *Cache) Move(ctx context.Context, digest, key string, put Put) error {
	lock, err := c.lock(ctx, digest, lockSuffix)
	if err != nil {
		return err
	}
	defer lock.Release()
	ix, err := c.readIndex(digest)
	if err != nil {
		return err
	}
	if known(ix.Images, key) {
		return nil
	}
	code, err := c.openCode(digest, ix)
	if err != nil {
		return err
	}
	defer code.Close()
	sum, err := sumOf(code)
	if err != nil {
		return err
	}
	path, image, err := put(ctx, code, sum)
	if err != nil {
		return err
	}
	image.Key = key
	ix.Images = append(ix.Images[max(0, len(ix.Images)-mostImages+1):], image)
	if path == "" {
		return c.writeIndex(digest, ix)
	}
	if ix.Code, err = identifyCopy(path, sum); err != nil {
		return err
	}
	ix.Blob = path
	return c.writeIndex(digest, ix)
}

// mostImages bounds the images that lookups read. An image that was dropped from the list is asked again.
const mostImages = 32

func sumOf(f *os.File) (string, error) {
	h := sha256.New()
	if _, err := io.Copy(h, io.NewSectionReader(f, 0, 1<<62)); err != nil {
		return "", fmt.Errorf("hash compiled module: %w", err)
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// identifyCopy returns the identity of the file at path. It fails unless the file's sha256 is sum.
func identifyCopy(path, sum string) (identity, error) {
	f, err := filelock.OpenShared(path)
	if err != nil {
		return identity{}, fmt.Errorf("open the stored code: %w", err)
	}
	defer f.Close()
	before, err := identify(f)
	if err != nil {
		return identity{}, err
	}
	got, err := sumOf(f)
	if err != nil {
		return identity{}, err
	}
	after, err := identify(f)
	if err != nil {
		return identity{}, err
	}
	if got != sum || before != after {
		return identity{}, fmt.Errorf("stored code %s: %w", path, errDamaged)
	}
	return after, nil
}

// Drop removes the code that an entry had before it was moved, as soon as it is not in use. If ctx ends
// before, Trim removes it later.
func (c *Cache) Drop(ctx context.Context, digest string) error {
	if ix, err := c.readIndex(digest); err != nil || ix.Blob == "" {
		return err
	}
	for {
		if err := c.tidy(digest); err != nil {
			return err
		}
		if _, err := os.Lstat(c.path(digest, codeSuffix)); errors.Is(err, os.ErrNotExist) {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(dropPause):
		}
	}
}

// dropPause is the time between two checks whether superfluous code is still used.
const dropPause = 50 * time.Millisecond

package cache

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"
)

// Refused is the error of a Compiler for a module that no container could run, under any limits. Load
// remembers it, for this engine.
type Refused struct {
	// Reason continues a sentence that starts with the module's name, which differs in every image.
	Reason string
}

func (r *Refused) Error() string { return r.Reason }

// Refusals are files in this folder beside the entries, named after the module.
const (
	refusedDir   = "refused"
	mostRefusals = 1024
	maxRefusal   = 4 << 10 // bytes
	// refusalAge is how long a refusal is kept. A module that is still in use then is judged anew, and the
	// refusals of old engines disappear.
	refusalAge = 7 * 24 * time.Hour
)

func (c *Cache) refusalPath(digest string) string { return filepath.Join(c.dir, refusedDir, digest) }

// refusal returns the refusal of a module, and reports whether there is one.
func (c *Cache) refusal(digest string) (*Refused, bool) {
	f, err := os.OpenFile(c.refusalPath(digest), os.O_RDONLY|syscall.O_NOFOLLOW, 0)
	if err != nil {
		return nil, false
	}
	defer f.Close()
	reason, err := io.ReadAll(io.LimitReader(f, maxRefusal))
	return &Refused{string(reason)}, err == nil && len(reason) > 0
}

// refuse remembers a refusal. Nothing depends on its success: otherwise the module is judged again.
func (c *Cache) refuse(ctx context.Context, digest string, r *Refused) error {
	lock, err := c.await(ctx, digest, lockSuffix)
	if err != nil {
		return fmt.Errorf("remember a refused module: %w", err)
	}
	defer lock.Release()
	dir := filepath.Join(c.dir, refusedDir)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("remember a refused module: %w", err)
	}
	if err := makeRoom(dir); err != nil {
		return fmt.Errorf("forget refused modules: %w", err)
	}
	part := c.refusalPath(digest) + partSuffix
	defer os.Remove(part)
	err = os.WriteFile(part, []byte(r.Reason[:min(len(r.Reason), maxRefusal)]), 0o600)
	if err == nil {
		err = os.Rename(part, c.refusalPath(digest))
	}
	if err != nil {
		return fmt.Errorf("remember a refused module: %w", err)
	}
	return nil
}

// makeRoom removes the older half of the refusals if there are too many.
func makeRoom(dir string) error {
	files, err := filesOf(dir)
	if err != nil || len(files) < mostRefusals {
		return err
	}
	slices.SortFunc(files, func(a, b fs.FileInfo) int { return cmp.Compare(a.ModTime().UnixNano(), b.ModTime().UnixNano()) })
	for _, f := range files[:len(files)/2] {
		err = errors.Join(err, remove(filepath.Join(dir, f.Name())))
	}
	return err
}

// filesOf returns the files in a folder, none if the folder does not exist.
func filesOf(dir string) ([]fs.FileInfo, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var files []fs.FileInfo
	for _, entry := range entries {
		if info, err := entry.Info(); err == nil { // otherwise another process has removed it
			files = append(files, info)
		}
	}
	return files, nil
}

// forget removes the refusals of all engines in the folder dir that are older than age.
func forget(dir string, age time.Duration) error {
	engines, err := openAll(dir)
	if err != nil {
		return err
	}
	var failures []error
	for _, c := range engines {
		files, err := filesOf(filepath.Join(c.dir, refusedDir))
		failures = append(failures, err)
		for _, f := range files {
			if time.Since(f.ModTime()) >= age {
				failures = append(failures, remove(c.refusalPath(f.Name())))
			}
		}
	}
	return errors.Join(failures...)
}

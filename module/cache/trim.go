package cache

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/wasmshim/containerd-shim-wasm/module/filelock"
)

// Info describes an entry for people and for Trim.
type Info struct {
	Engine, Digest, Name string
	Tenant               string // the tenant for whom it was compiled
	Size                 int64  // of the code and the index, in bytes
	Used                 time.Time
	// Blob is the path of the code in containerd's content store, empty if it is in the cache.
	Blob   string
	Images []Image
	InUse  bool

	cache *Cache
}

// Release makes containerd's images no longer keep an entry's blob.
type Release func(ctx context.Context, entry Info) error

// List returns the whole entries of every engine's cache in the folder dir, the
// least recently used first.
func List(ctx context.Context, dir string) ([]Info, error) {
	engines, err := openAll(dir)
	if err != nil {
		return nil, err
	}
	var all []Info
	for _, c := range engines {
		names, err := readNames(c.dir)
		if err != nil {
			return nil, err
		}
		for _, name := range names {
			digest, suffix, ok := cutName(name)
			if !ok || suffix != indexSuffix {
				continue
			}
			if err := ctx.Err(); err != nil {
				return nil, err
			}
			if info, err := c.info(digest); err == nil {
				all = append(all, info)
			}
		}
	}
	slices.SortFunc(all, func(a, b Info) int { return a.Used.Compare(b.Used) })
	return all, nil
}

func (c *Cache) info(digest string) (Info, error) {
	ix, err := c.intact(digest)
	if err != nil {
		return Info{}, err
	}
	at, err := os.Lstat(c.path(digest, indexSuffix))
	if err != nil {
		return Info{}, err
	}
	used, err := filelock.InUse(c.codePath(digest, ix))
	if err != nil {
		return Info{}, err
	}
	return Info{
		Engine: filepath.Base(c.dir), Digest: digest, Name: ix.Module.Name, Tenant: ix.Module.Tenant,
		Size: ix.Code.Size + at.Size(), Used: at.ModTime(),
		Blob: ix.Blob, Images: ix.Images, InUse: used, cache: c,
	}, nil
}

// trimLock is beside the engines' folders.
const trimLock = "trim.lock"

// Trim removes entries until those of all engines in the folder dir take at most limit bytes, and the
// leftovers of dead processes and damaged entries. It removes the least recently used entry of the tenant
// with the largest share first. It removes no entry that is in use, and none of a tenant within an equal
// share because of the entries that others use, so the limit may stay exceeded. One process trims at a time.
//
// containerd removes blobs after release has asked it to; without release they stay, and pending reports
// whether some should be removed.
func Trim(ctx context.Context, dir string, limit int64, release Release) (removed []Info, pending bool, err error) {
	if err := forget(dir, refusalAge); err != nil {
		return nil, false, err
	}
	return trim(ctx, dir, release, func(all []Info) []Info { return excess(all, limit) })
}

// Prune removes the entries for which unwanted is true and that are not in use, and forgets which modules
// were refused.
func Prune(ctx context.Context, dir string, unwanted func(Info) bool, release Release) ([]Info, error) {
	if err := forget(dir, 0); err != nil {
		return nil, err
	}
	removed, _, err := trim(ctx, dir, release, func(all []Info) []Info {
		return slices.DeleteFunc(all, func(info Info) bool { return info.InUse || !unwanted(info) })
	})
	return removed, err
}

func trim(ctx context.Context, dir string, release Release, choose func([]Info) []Info) (removed []Info, pending bool, err error) {
	if _, err := os.Lstat(dir); errors.Is(err, os.ErrNotExist) {
		return nil, false, nil
	}
	lock, err := filelock.Wait(ctx, filepath.Join(dir, trimLock))
	if err != nil {
		return nil, false, fmt.Errorf("wait for another clean-up of the compile cache: %w", err)
	}
	defer lock.Release()
	failures := []error{tidyAll(dir)}
	all, err := List(ctx, dir)
	if err != nil {
		return nil, false, err
	}
	for _, info := range choose(all) {
		if err := ctx.Err(); err != nil {
			return removed, pending, errors.Join(append(failures, err)...)
		}
		if info.Blob != "" && release == nil {
			pending = true
			continue
		}
		err := info.remove(ctx, release)
		if err == nil {
			removed = append(removed, info)
		}
		if !errors.Is(err, filelock.ErrBusy) {
			failures = append(failures, err)
		}
	}
	return removed, pending, errors.Join(failures...)
}

// tidyAll is Sweep, but checks every entry.
func tidyAll(dir string) error {
	engines, err := openAll(dir)
	if err != nil {
		return err
	}
	var failures []error
	for _, c := range engines {
		all, err := c.files()
		failures = append(failures, err)
		for digest, f := range all {
			if f.temporary || !c.whole(digest) {
				failures = append(failures, c.tidy(digest))
			}
		}
	}
	return errors.Join(failures...)
}

// whole reports whether an entry exists and has no damaged or superfluous file.
func (c *Cache) whole(digest string) bool {
	ix, err := c.intact(digest)
	if err != nil || ix.Blob == "" {
		return err == nil
	}
	_, err = os.Lstat(c.path(digest, codeSuffix))
	return err != nil
}

// remove removes an entry that is not in use and has not been used since it was listed; otherwise it returns
// filelock.ErrBusy.
func (i Info) remove(ctx context.Context, release Release) error {
	lock, err := i.cache.tryLock(i.Digest)
	if err != nil {
		return err
	}
	defer lock.Release()
	if err := i.removeFiles(); err != nil || i.Blob == "" {
		return err
	}
	if err := release(ctx, i); err != nil {
		return fmt.Errorf("compiled module %s is forgotten, but its blob %s stays until its image is removed: %w", i.Digest, i.Blob, err)
	}
	return nil
}

func (i Info) removeFiles() error {
	ix, err := i.cache.readIndex(i.Digest)
	if err != nil {
		return err
	}
	release, err := i.exclude(ix)
	if err != nil {
		return err
	}
	defer release()
	path := i.cache.path(i.Digest, indexSuffix)
	at, err := os.Lstat(path)
	if err != nil {
		return err
	}
	if !at.ModTime().Equal(i.Used) {
		return filelock.ErrBusy
	}
	if err := os.Remove(path); err != nil || ix.Blob != "" {
		return err
	}
	return os.Remove(i.cache.codePath(i.Digest, ix))
}

// exclude prevents others from using an entry's code until release is called: they see that it is locked,
// wait for the entry's lock, and find no entry. For a blob of containerd's it only checks the locks:
// containerd itself removes blobs without asking, and sealed blobs (fsverity) cannot be opened for writing.
func (i Info) exclude(ix index) (release func() error, err error) {
	path := i.cache.codePath(i.Digest, ix)
	if ix.Blob == "" {
		code, err := filelock.OpenExclusive(path)
		if err != nil {
			return nil, err
		}
		return code.Close, nil
	}
	used, err := filelock.InUse(path)
	if used && err == nil {
		err = filelock.ErrBusy
	}
	return func() error { return nil }, err
}

package cache

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// Info is what people and Trim are told of an entry.
type Info struct {
	Engine, Digest, Name string
	Size                 int64 // of the code, in bytes
	Used                 time.Time
	// Blob is the path of the code in containerd's content store, empty if it lies
	// in the cache.
	Blob   string
	Images []Image
	InUse  bool

	cache *Cache
}

// Release has containerd's images no longer keep an entry's blob.
type Release func(ctx context.Context, entry Info) error

// List returns the whole entries of every engine's cache in the folder dir, the
// least recently used first.
func List(dir string) ([]Info, error) {
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
	return Info{
		Engine: filepath.Base(c.dir), Digest: digest, Name: ix.Module.Name, Size: ix.Code.Size, Used: at.ModTime(),
		Blob: ix.Blob, Images: ix.Images, InUse: isLocked(c.codePath(digest, ix)), cache: c,
	}, nil
}

func isLocked(path string) bool {
	f, err := openLocked(path, unix.LOCK_EX|unix.LOCK_NB)
	if err != nil {
		return errors.Is(err, unix.EWOULDBLOCK)
	}
	f.Close()
	return false
}

// trimLock is beside the engines' folders.
const trimLock = "trim.lock"

// Trim removes entries, the least recently used first, until those of all
// engines in the folder dir take no more than limit bytes, and what is left of
// dead processes and damaged entries. It removes nothing that is in use, hence the
// limit may stay exceeded. One process trims at a time.
//
// Blobs are removed by containerd, once release has told it; without release
// they stay, and pending says that some should go.
func Trim(ctx context.Context, dir string, limit int64, release Release) (removed []Info, pending bool, err error) {
	return trim(ctx, dir, release, func(all []Info) func(Info) bool {
		var total int64
		for _, info := range all {
			total += info.Size
		}
		return func(info Info) bool {
			if total <= limit {
				return false
			}
			total -= info.Size
			return true
		}
	})
}

// Prune removes the entries that unwanted names and that are not in use.
func Prune(ctx context.Context, dir string, unwanted func(Info) bool, release Release) ([]Info, error) {
	removed, _, err := trim(ctx, dir, release, func([]Info) func(Info) bool { return unwanted })
	return removed, err
}

func trim(ctx context.Context, dir string, release Release, choose func([]Info) func(Info) bool) (removed []Info, pending bool, err error) {
	if _, err := os.Lstat(dir); errors.Is(err, os.ErrNotExist) {
		return nil, false, nil
	}
	unlock, err := lockFile(filepath.Join(dir, trimLock), func(f *os.File) error { return flock(ctx, f) })
	if err != nil {
		return nil, false, fmt.Errorf("wait for another clean-up of the compile cache: %w", err)
	}
	defer unlock()
	failures := []error{tidyAll(dir)}
	all, err := List(dir)
	if err != nil {
		return nil, false, err
	}
	unwanted := choose(all)
	for _, info := range all {
		switch {
		case info.InUse || !unwanted(info):
		case info.Blob != "" && release == nil:
			pending = true
		default:
			err := info.remove(ctx, release)
			if err == nil {
				removed = append(removed, info)
			}
			if !errors.Is(err, errBusy) {
				failures = append(failures, err)
			}
		}
	}
	return removed, pending, errors.Join(failures...)
}

// tidyAll is Sweep that looks at every entry.
func tidyAll(dir string) error {
	engines, err := openAll(dir)
	if err != nil {
		return err
	}
	var failures []error
	for _, c := range engines {
		names, err := readNames(c.dir)
		failures = append(failures, err)
		var digests []string
		for _, name := range names {
			if digest, _, ok := cutName(name); ok {
				digests = append(digests, digest)
			}
		}
		slices.Sort(digests)
		for _, digest := range slices.Compact(digests) {
			if !c.whole(digest) {
				failures = append(failures, c.tidy(digest))
			}
		}
	}
	return errors.Join(failures...)
}

// whole reports whether tidy would find nothing to do.
func (c *Cache) whole(digest string) bool {
	for _, suffix := range []string{partSuffix, indexSuffix + partSuffix, lockSuffix} {
		if _, err := os.Lstat(c.path(digest, suffix)); err == nil {
			return false
		}
	}
	ix, err := c.intact(digest)
	if err != nil || ix.Blob == "" {
		return err == nil
	}
	_, err = os.Lstat(c.path(digest, codeSuffix))
	return err != nil
}

// remove removes an entry that nobody uses and nobody has used since it was
// listed; errBusy says that somebody has.
func (i Info) remove(ctx context.Context, release Release) error {
	unlock, err := i.cache.tryLock(i.Digest)
	if err != nil {
		return err
	}
	defer unlock()
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
	path := i.cache.path(i.Digest, indexSuffix)
	// Nobody can take the code into use while this is open: they wait for it, and
	// then find an unlinked file.
	code, err := i.cache.openCode(i.Digest, ix, unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return errBusy
	}
	if err != nil {
		return err
	}
	defer code.Close()
	at, err := os.Lstat(path)
	if err != nil {
		return err
	}
	if !at.ModTime().Equal(i.Used) {
		return errBusy
	}
	if err := os.Remove(path); err != nil || ix.Blob != "" {
		return err
	}
	return os.Remove(code.Name())
}

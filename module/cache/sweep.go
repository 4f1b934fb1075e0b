package cache

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/wasmshim/containerd-shim-wasm/module/filelock"
)

// Sweep removes the files that dead processes have left in the folder dir of all engines' caches. It reads
// only names, and leaves the files of living processes alone.
func Sweep(dir string) error {
	engines, err := openAll(dir)
	if err != nil {
		return err
	}
	var failures []error
	for _, c := range engines {
		digests, err := c.suspects()
		failures = append(failures, err)
		for _, digest := range digests {
			failures = append(failures, c.tidy(digest))
		}
	}
	return errors.Join(failures...)
}

// openAll returns the caches of every engine below dir, none if dir does not exist.
func openAll(dir string) ([]*Cache, error) {
	names, err := readNames(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var all []*Cache
	for _, name := range names {
		path := filepath.Join(dir, name)
		if info, err := os.Lstat(path); err == nil && info.IsDir() && checkOwner(path) == nil {
			all = append(all, &Cache{dir: path})
		}
	}
	return all, nil
}

func readNames(dir string) ([]string, error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return f.Readdirnames(-1)
}

// suspects returns the digests that have a file that a whole entry has not, or code without an index.
func (c *Cache) suspects() ([]string, error) {
	all, err := c.files()
	var found []string
	for digest, f := range all {
		if f.temporary || f.code && !f.index {
			found = append(found, digest)
		}
	}
	return found, err
}

// files reports which kinds of files an entry has.
type files struct{ temporary, code, index bool }

// files returns the kinds of files of every entry, by digest.
func (c *Cache) files() (map[string]files, error) {
	names, err := readNames(c.dir)
	if err != nil {
		return nil, err
	}
	all := map[string]files{}
	for _, name := range names {
		digest, suffix, ok := cutName(name)
		if !ok {
			continue
		}
		f := all[digest]
		switch suffix {
		case codeSuffix:
			f.code = true
		case indexSuffix:
			f.index = true
		default:
			f.temporary = true
		}
		all[digest] = f
	}
	return all, nil
}

// cutName splits the name of a cache file. Part files of code end with partSuffix, whatever comes before it.
func cutName(name string) (digest, suffix string, ok bool) {
	digest, rest, _ := strings.Cut(name, ".")
	suffix = "." + rest
	switch suffix {
	case codeSuffix, indexSuffix, indexSuffix + partSuffix, lockSuffix, workSuffix:
		return digest, suffix, true
	}
	if strings.HasSuffix(suffix, partSuffix) {
		return digest, partSuffix, true
	}
	return "", "", false
}

// tidy leaves a whole entry, or removes all of it. Code that is still in use stays.
func (c *Cache) tidy(digest string) error {
	lock, err := c.tryLock(digest)
	if errors.Is(err, filelock.ErrBusy) {
		return nil
	}
	if err != nil {
		return err
	}
	defer lock.Release()
	if work, err := filelock.Try(c.path(digest, workSuffix)); err == nil {
		work.Release() // which removes the lock file of a dead process
	}
	err = errors.Join(c.removeParts(digest), remove(c.path(digest, indexSuffix+partSuffix)))
	ix, failed := c.intact(digest)
	if failed != nil {
		err = errors.Join(err, remove(c.path(digest, indexSuffix)))
	}
	if failed != nil || ix.Blob != "" {
		err = errors.Join(err, removeUnused(c.path(digest, codeSuffix)))
	}
	return err
}

// removeParts removes the part files that no process writes any more.
func (c *Cache) removeParts(digest string) error {
	names, err := readNames(c.dir)
	failures := []error{err}
	for _, name := range names {
		if owner, suffix, _ := cutName(name); owner == digest && suffix == partSuffix {
			failures = append(failures, removeUnused(filepath.Join(c.dir, name)))
		}
	}
	return errors.Join(failures...)
}

// intact returns the index of an entry whose code is the file that was written. It opens no file that a
// container can open.
func (c *Cache) intact(digest string) (index, error) {
	ix, err := c.readIndex(digest)
	if err != nil {
		return ix, err
	}
	path := c.codePath(digest, ix)
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return ix, &os.PathError{Op: "stat", Path: path, Err: err}
	}
	if identityOf(st) != ix.Code {
		return ix, fmt.Errorf("compiled module %s: %w", path, errDamaged)
	}
	return ix, nil
}

// removeUnused removes a file that is not locked.
func removeUnused(path string) error {
	code, err := filelock.OpenExclusive(path)
	if errors.Is(err, filelock.ErrBusy) || errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if errors.Is(err, unix.ELOOP) {
		return remove(path) // a foreign link
	}
	if err != nil {
		return err
	}
	defer code.Close()
	return remove(path)
}

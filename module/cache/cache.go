// Package cache keeps machine code on the node, for workers to map. Loading compiled code needs as much
// trust as loading a shared library. So only root can write to the folder, an entry appears whole or not at
// all, and an entry that is not exactly the file that was written is never returned: it is compiled anew.
//
// An entry, one per module digest and engine, is an index that names a file of code. The file is beside the
// index or, after Move, is a blob of containerd's content store, which frees it with the last image that
// refers to it. A user of an entry's code holds a shared lock on it (package filelock), and no locked file is
// removed (Trim). A process that dies at any point leaves at most temporary files, which Sweep removes.
//
// Two locks belong to an entry. A process that changes its files holds the first while it does. A process
// that compiles holds the second, which only saves others the same work: they wait for it, but not for ever,
// because a container can make a compilation as slow as it wants.
//
// The package never compiles, never looks into a module and never talks to
// containerd.
package cache

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/wasmshim/containerd-shim-wasm/module/filelock"
	"github.com/wasmshim/containerd-shim-wasm/worker/control"
)

// Cache is a folder of machine code for one engine.
type Cache struct {
	dir      string
	patience time.Duration
}

// patience is how long Load waits for another process that compiles the same module: that process has the
// limits of its own pod, which may be tiny.
const patience = 30 * time.Second

// Open returns the cache in dir for the engine with the given key (of letters and digits). It creates the
// folder for root alone, and refuses a folder that others can write.
func Open(dir, engine string) (*Cache, error) {
	path := filepath.Join(dir, engine)
	if err := os.MkdirAll(path, 0o700); err != nil {
		return nil, fmt.Errorf("create compile cache: %w", err)
	}
	for _, d := range []string{dir, path} {
		if err := checkOwner(d); err != nil {
			return nil, err
		}
	}
	return &Cache{dir: path, patience: patience}, nil
}

func checkOwner(dir string) error {
	var st unix.Stat_t
	if err := unix.Lstat(dir, &st); err != nil {
		return &os.PathError{Op: "stat compile cache", Path: dir, Err: err}
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR || st.Uid != uint32(os.Geteuid()) || st.Mode&0o022 != 0 {
		return fmt.Errorf("compile cache %s must be a folder that only its owner, root, can write: chown root it and chmod go-w it", dir)
	}
	return nil
}

// Unusable reports whether an error of Open or Load means that the cache's file system cannot be written: it
// is full, over its quota, read-only or broken. The module itself may be all right; see Uncached.
func Unusable(err error) bool {
	for _, reason := range []error{unix.ENOSPC, unix.EDQUOT, unix.EROFS, unix.EIO, unix.ENOTDIR, unix.EACCES, unix.EPERM} {
		if errors.Is(err, reason) {
			return true
		}
	}
	return false
}

// Compiler writes the code of a module to out and describes it.
type Compiler func(ctx context.Context, out *os.File) (*control.Module, error)

// Entry is compiled code, open for reading and locked: it is not removed while Code is open.
type Entry struct {
	Code   *os.File
	Module control.Module
	// Digest is the digest of the module.
	Digest string
	// Compiled reports whether this very call compiled it.
	Compiled bool

	images    []Image
	temporary string // the path of Code if Close removes it
}

// Close releases the code. Processes that map it keep it.
func (e Entry) Close() error {
	err := e.Code.Close()
	if e.temporary != "" {
		err = errors.Join(err, os.Remove(e.temporary))
	}
	return err
}

// ErrHeld is the error of Load when another process has been changing the entry's files for too long. The
// module can be compiled for one use; see Uncached.
var ErrHeld = errors.New("somebody else has been at work on its entry in the compile cache for long")

// Load returns the entry for digest, and compiles it if there is none. If several processes ask at once, one
// compiles and the others wait for it for a limited time. Then they compile, too, and the first to finish
// makes the entry. A module that a Compiler has Refused is refused from then on.
func (c *Cache) Load(ctx context.Context, digest string, compile Compiler) (Entry, error) {
	if entry, err := c.lookup(digest); err == nil {
		return entry, nil
	}
	if refused, ok := c.refusal(digest); ok {
		return Entry{}, refused
	}
	work, err := c.await(ctx, digest, workSuffix)
	if err == nil {
		defer work.Release()
	} else if !errors.Is(err, ErrHeld) {
		return Entry{}, err
	}
	if entry, err := c.lookup(digest); err == nil {
		return entry, nil
	}
	if refused, ok := c.refusal(digest); ok {
		return Entry{}, refused
	}
	entry, err := c.build(ctx, digest, compile)
	if errors.Is(err, ErrMade) {
		return c.lookup(digest)
	}
	var refused *Refused
	if errors.As(err, &refused) {
		return Entry{}, errors.Join(refused, c.refuse(ctx, digest, refused))
	}
	return entry, err
}

// ErrMade is the error of a Compiler that has waited while the entry was made; see Has. Load then returns
// that entry.
var ErrMade = errors.New("somebody else has compiled it meanwhile")

// Has reports whether there is an intact entry for digest.
func (c *Cache) Has(digest string) bool {
	entry, err := c.lookup(digest)
	if err != nil {
		return false
	}
	entry.Close()
	return true
}

// await takes one of an entry's locks. It returns ErrHeld after c.patience.
func (c *Cache) await(ctx context.Context, digest, suffix string) (*filelock.Lock, error) {
	waiting, cancel := context.WithTimeout(ctx, c.patience)
	defer cancel()
	lock, err := c.lock(waiting, digest, suffix)
	if err != nil && waiting.Err() != nil && ctx.Err() == nil {
		return nil, fmt.Errorf("module %s: %w", digest, ErrHeld)
	}
	return lock, err
}

// lock takes one of an entry's machine-wide locks.
func (c *Cache) lock(ctx context.Context, digest, suffix string) (*filelock.Lock, error) {
	lock, err := filelock.Wait(ctx, c.path(digest, suffix))
	if err != nil {
		return nil, fmt.Errorf("wait for another's work on module %s: %w", digest, err)
	}
	return lock, nil
}

// tryLock takes the lock of an entry's files without waiting. It returns filelock.ErrBusy if the lock is
// held.
func (c *Cache) tryLock(digest string) (*filelock.Lock, error) {
	return filelock.Try(c.path(digest, lockSuffix))
}

const (
	codeSuffix  = ".cwasm"
	indexSuffix = ".json"
	partSuffix  = ".part"
	lockSuffix  = ".lock" // held while an entry's files are changed
	workSuffix  = ".work" // held while the module is compiled
)

func (c *Cache) path(digest, suffix string) string { return c.dir + "/" + digest + suffix }

package cache

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// lock takes the machine-wide lock of an entry, which whoever changes one holds,
// and returns what releases it.
func (c *Cache) lock(ctx context.Context, digest string) (func(), error) {
	return lockFile(c.path(digest, lockSuffix), func(f *os.File) error {
		if err := flock(ctx, f); err != nil {
			return fmt.Errorf("wait for another compilation of module %s: %w", digest, err)
		}
		return nil
	})
}

// tryLock is lock that does not wait: errBusy.
func (c *Cache) tryLock(digest string) (func(), error) {
	return lockFile(c.path(digest, lockSuffix), tryFlock)
}

var errBusy = errors.New("somebody is at work on it")

// lockFile locks a file made for that. The lock dies with its holder. Its file is
// removed by the last holder, so a file that was locked but is no longer the one
// at its path counts for nothing.
func lockFile(path string, take func(*os.File) error) (func(), error) {
	for {
		f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|syscall.O_NOFOLLOW, 0o600)
		if err != nil {
			return nil, fmt.Errorf("open cache lock: %w", err)
		}
		if err := take(f); err != nil {
			f.Close()
			return nil, err
		}
		if current(f, path) {
			return func() { os.Remove(path); f.Close() }, nil
		}
		f.Close()
	}
}

func tryFlock(f *os.File) error {
	err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return errBusy
	}
	return err
}

// flock waits in a goroutine of its own, because flock(2) knows no deadline. If
// ctx ends first, the goroutine gives the lock back whenever it gets it.
func flock(ctx context.Context, f *os.File) error {
	if err := tryFlock(f); !errors.Is(err, errBusy) {
		return err
	}
	dup, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return err
	}
	got := make(chan error, 1)
	go func() {
		// The duplicate shares the lock and keeps it until it is closed too.
		got <- unix.Flock(dup, unix.LOCK_EX)
		unix.Close(dup)
	}()
	select {
	case err := <-got:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

func current(f *os.File, path string) bool {
	at, err := os.Lstat(path)
	if err != nil {
		return false
	}
	mine, err := f.Stat()
	return err == nil && os.SameFile(at, mine)
}

// Package filelock locks files that containers may open, too: they map compiled code, and a process that can
// open a file can lock it.
//
// The locks are open file description locks (fcntl_locking(2), F_OFD_SETLK). Like those of flock(2) they are
// inherited and end with the last descriptor and mapping. Unlike with flock(2), an exclusive lock needs a
// descriptor that is open for writing, which a read-only mount never gives. So a container can prevent the
// removal of a file, as it does anyway by using it, but cannot keep others from using it.
//
// No function waits without a context. Even open(2) would wait for the holder of a lease (fcntl(2), F_SETLEASE;
// any process with the owner's user id can take one), so files are opened with O_NONBLOCK, and the error is
// ErrBusy.
// See RATIONALE.md, "Why open file description locks?"
package filelock

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// ErrBusy reports that another process holds a lock, or a lease, on the file.
var ErrBusy = errors.New("somebody else is at work on it")

// Share takes the shared lock of a file that is open for reading.
func Share(f *os.File) error { return lock(f, unix.F_RDLCK) }

// Exclude takes the exclusive lock of a file that is open for writing.
func Exclude(f *os.File) error { return lock(f, unix.F_WRLCK) }

func lock(f *os.File, kind int16) error {
	err := unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &unix.Flock_t{Type: kind})
	if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EACCES) {
		err = ErrBusy
	}
	if err != nil {
		return &os.PathError{Op: "lock", Path: f.Name(), Err: err}
	}
	return nil
}

// OpenShared opens the file at path for reading with the shared lock. It follows no
// link.
func OpenShared(path string) (*os.File, error) { return openWith(path, os.O_RDONLY, Share) }

// OpenExclusive opens the file at path for writing with the exclusive lock. It follows
// no link.
func OpenExclusive(path string) (*os.File, error) { return openWith(path, os.O_RDWR, Exclude) }

func openWith(path string, flags int, take func(*os.File) error) (*os.File, error) {
	f, err := open(path, flags)
	if err != nil {
		return nil, err
	}
	if err := take(f); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

func open(path string, flags int) (*os.File, error) {
	fd, err := unix.Open(path, flags|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0o600)
	if errors.Is(err, unix.EWOULDBLOCK) {
		err = ErrBusy
	}
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	return os.NewFile(uintptr(fd), path), nil
}

// InUse reports whether any process holds a lock on the file at path. A file that cannot be opened because of
// a lease is in use.
func InUse(path string) (bool, error) {
	f, err := open(path, os.O_RDONLY)
	if errors.Is(err, ErrBusy) {
		return true, nil
	}
	if err != nil {
		return false, err
	}
	defer f.Close()
	found := unix.Flock_t{Type: unix.F_WRLCK}
	if err := unix.FcntlFlock(f.Fd(), unix.F_OFD_GETLK, &found); err != nil {
		return false, &os.PathError{Op: "look at locks", Path: path, Err: err}
	}
	return found.Type != unix.F_UNLCK, nil
}

// Lock is the lock of a file that exists only for it. It ends with its holder.
type Lock struct{ file *os.File }

// Release releases the lock, and removes its file.
func (l *Lock) Release() {
	os.Remove(l.file.Name())
	l.file.Close()
}

// maxNote bounds a note, in bytes.
const maxNote = 64 << 10

// Note returns the note that a dead holder left for the next holder.
func (l *Lock) Note() ([]byte, error) {
	note, err := io.ReadAll(io.NewSectionReader(l.file, 0, maxNote))
	if err != nil {
		return nil, fmt.Errorf("read the note in lock %s: %w", l.file.Name(), err)
	}
	return note, nil
}

// SetNote writes a note, which replaces the one before.
func (l *Lock) SetNote(note []byte) error {
	err := l.file.Truncate(0)
	if err == nil {
		_, err = l.file.WriteAt(note, 0)
	}
	if err != nil {
		return fmt.Errorf("leave a note in lock %s: %w", l.file.Name(), err)
	}
	return nil
}

// CreateShared creates a file as os.CreateTemp does, open with its shared lock, so that cleanups that remove
// only unlocked files leave it alone.
func CreateShared(dir, pattern string) (*os.File, error) {
	for {
		f, err := os.CreateTemp(dir, pattern)
		if err != nil {
			return nil, err
		}
		err = Share(f)
		if err == nil && isAt(f, f.Name()) {
			return f, nil
		}
		// Otherwise a cleanup came before the lock.
		f.Close()
		if err != nil && !errors.Is(err, ErrBusy) {
			return nil, errors.Join(err, os.Remove(f.Name()))
		}
	}
}

// Try takes the lock of the file at path. It returns ErrBusy if another process has the lock.
func Try(path string) (*Lock, error) {
	for {
		// The last holder removes the file, so a locked file that is no longer the one at its path does not
		// count.
		f, err := openWith(path, os.O_RDWR|os.O_CREATE, excludeAll)
		if err != nil {
			return nil, err
		}
		if isAt(f, path) {
			return &Lock{f}, nil
		}
		f.Close()
	}
}

// excludeAll is Exclude, and also excludes daemons that an upgrade has left running: those of releases that
// use only flock(2), which does not see the other kind of lock. No container can open these files.
func excludeAll(f *os.File) error {
	if err := Exclude(f); err != nil {
		return err
	}
	err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		err = ErrBusy
	}
	if err != nil {
		return &os.PathError{Op: "lock", Path: f.Name(), Err: err}
	}
	return nil
}

func isAt(f *os.File, path string) bool {
	at, err := os.Lstat(path)
	if err != nil {
		return false
	}
	mine, err := f.Stat()
	return err == nil && os.SameFile(at, mine)
}

// pause is the time between two checks of a waiting process: short compared to the work it waits for, and a
// check costs some microseconds.
const pause = 10 * time.Millisecond

// Wait is Try, but waits until ctx ends for the first available lock of the files at paths. The error then
// wraps ErrBusy and the context's.
func Wait(ctx context.Context, paths ...string) (*Lock, error) {
	for {
		for _, path := range paths {
			lock, err := Try(path)
			if !errors.Is(err, ErrBusy) {
				return lock, err
			}
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("%w: %w", ErrBusy, ctx.Err())
		case <-time.After(pause):
		}
	}
}

package shim

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/wasmshim/containerd-shim-wasm/sandbox"
)

// makeSpool makes the folder for what is written to artifacts and returns it as a mount of its own: no path leads out of it.
// It first removes what an earlier container of that name has left.
func makeSpool(ctx context.Context, at string) (*os.File, error) {
	if err := os.MkdirAll(filepath.Dir(at), 0o711); err != nil {
		return nil, err
	}
	if err := removeTree(ctx, at); err != nil {
		return nil, err
	}
	if err := os.Mkdir(at, 0o700); err != nil {
		return nil, err
	}
	if err := os.Chown(at, serverID, serverID); err != nil {
		return nil, err
	}
	return sandbox.CloneFolder(at)
}

// Bounds of the time in which the folder is removed: our program leaves nothing there, but one that was taken over can leave
// any number of files, and pass the folder on to somebody who makes ever more. The delete verb has less time (serversLimit).
const (
	spoolLimit     = 10 * time.Second
	lateSpoolLimit = 2 * time.Second
)

// removeSpool removes the folder.
func (r *requested) removeSpool(c *container) {
	ctx, cancel := context.WithTimeout(context.Background(), spoolLimit)
	defer cancel()
	if err := removeTree(ctx, r.spool); err != nil {
		c.daemon.log.WithError(err).WithField("container", c.id).Warn("remove the folder for what was written to artifacts: it stays")
	}
}

// removeTree removes a folder with all that is in it, until ctx ends. It opens two folders at a time, however deep they are:
// [os.RemoveAll] opens all that are in each other.
func removeTree(ctx context.Context, at string) error {
	for {
		if err := ctx.Err(); err != nil {
			return &os.PathError{Op: "remove", Path: at, Err: err}
		}
		err := unix.Rmdir(at)
		if err == nil || errors.Is(err, unix.ENOENT) {
			return nil
		}
		if !errors.Is(err, unix.ENOTEMPTY) {
			return &os.PathError{Op: "remove", Path: at, Err: err}
		}
		err = removeOnce(ctx, at)
		if err != nil && !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.ENOTDIR) { // somebody has exchanged what was found
			return fmt.Errorf("remove what is in %s: %w", at, err)
		}
	}
}

// removeOnce removes the files of a folder and its folders. What those have goes up into the folder, if it is a folder that is
// not empty.
func removeOnce(ctx context.Context, at string) error {
	top, err := openFolder(unix.AT_FDCWD, at)
	if err != nil {
		return err
	}
	defer top.Close()
	return eachName(ctx, top, func(name string) error {
		err := removeName(top, name)
		if !errors.Is(err, unix.ENOTEMPTY) {
			return err
		}
		below, err := openFolder(int(top.Fd()), name)
		if err != nil {
			return err
		}
		defer below.Close()
		return eachName(ctx, below, func(name string) error {
			err := removeName(below, name)
			if errors.Is(err, unix.ENOTEMPTY) {
				err = unix.Renameat2(int(below.Fd()), name, int(top.Fd()), rand.Text(), unix.RENAME_NOREPLACE)
			}
			return err
		})
	})
}

func openFolder(dir int, name string) (*os.File, error) {
	fd, err := unix.Openat(dir, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), filepath.Base(name)), nil
}

// removeName removes a file or an empty folder. It is a no-op for one that has gone.
func removeName(dir *os.File, name string) error {
	err := unix.Unlinkat(int(dir.Fd()), name, 0)
	if errors.Is(err, unix.EISDIR) {
		err = unix.Unlinkat(int(dir.Fd()), name, unix.AT_REMOVEDIR)
	}
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	return err
}

// namesAtOnce is how many names are read of a folder at a time: it may have any number.
const namesAtOnce = 1000

// eachName calls a function for the names in a folder, until ctx ends.
func eachName(ctx context.Context, dir *os.File, do func(name string) error) error {
	for {
		names, err := dir.Readdirnames(namesAtOnce)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		for _, name := range names {
			if err := ctx.Err(); err != nil {
				return err
			}
			if err := do(name); err != nil {
				return err
			}
		}
	}
}

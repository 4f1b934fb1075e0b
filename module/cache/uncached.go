package cache

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/wasmshim/containerd-shim-wasm/module/filelock"
	"github.com/wasmshim/containerd-shim-wasm/worker/control"
)

// Uncached compiles for one use, if the cache cannot be written. The code is in a file in dir, which should
// be in memory. The file has a name only until the entry is closed: a file without a name cannot be mounted
// (move_mount(2)). It takes memory as long as a process maps it.
//
// Others need dir's file system, too, containerd among them, so the code may take at most the room that
// compile gets, in bytes.
func Uncached(ctx context.Context, dir, digest string, compile func(ctx context.Context, out *os.File, room int64) (*control.Module, error)) (Entry, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return Entry{}, fmt.Errorf("compile without the cache: %w", err)
	}
	out, err := os.OpenFile(dir, os.O_RDWR|unix.O_TMPFILE, 0o444)
	if err != nil {
		return Entry{}, fmt.Errorf("compile without the cache: %w", err)
	}
	defer out.Close()
	room, err := roomBeside(out)
	if err != nil {
		return Entry{}, err
	}
	module, err := compile(ctx, out, room)
	if err != nil {
		return Entry{}, fmt.Errorf("compile without the cache, for which there are %d bytes in %s: %w", room, dir, err)
	}
	if _, err := roomBeside(out); err != nil {
		return Entry{}, err
	}
	// Take the lock before the file has a name, so that SweepUncached leaves it alone.
	if err := filelock.Share(out); err != nil {
		return Entry{}, fmt.Errorf("uncached code: %w", err)
	}
	path := filepath.Join(dir, fmt.Sprintf("%s.%d.%d%s", digest, os.Getpid(), inode(out), codeSuffix))
	err = unix.Linkat(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", out.Fd()), unix.AT_FDCWD, path, unix.AT_SYMLINK_FOLLOW)
	if err != nil {
		return Entry{}, &os.PathError{Op: "name uncached code", Path: path, Err: err}
	}
	code, err := filelock.OpenShared(path)
	if err != nil {
		return Entry{}, errors.Join(err, os.Remove(path))
	}
	return Entry{Code: code, Module: *module, Digest: digest, Compiled: true, temporary: path}, nil
}

// Uncached code leaves a quarter of its file system free, or mostFree bytes if that is less.
const mostFree = 512 << 20

// roomBeside returns how many bytes may still be written to f's file system, or an error if there are none.
func roomBeside(f *os.File) (int64, error) {
	var st unix.Statfs_t
	if err := unix.Fstatfs(int(f.Fd()), &st); err != nil {
		return 0, &os.PathError{Op: "statfs", Path: f.Name(), Err: err}
	}
	room := int64(st.Bavail)*st.Bsize - min(int64(st.Blocks)*st.Bsize/4, mostFree)
	if room <= 0 {
		return 0, fmt.Errorf("the file system of %s has no more room for code that is not in the compile cache: mend the compile cache, and end containers that were started without it", f.Name())
	}
	return room, nil
}

func inode(f *os.File) uint64 {
	if info, err := f.Stat(); err == nil {
		return info.Sys().(*syscall.Stat_t).Ino
	}
	return 0
}

// SweepUncached removes the files that dead processes have left in Uncached's dir.
func SweepUncached(dir string) error {
	names, err := readNames(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	failures := []error{err}
	for _, name := range names {
		failures = append(failures, removeUnused(filepath.Join(dir, name)))
	}
	return errors.Join(failures...)
}

package unpack

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/wasmshim/containerd-shim-wasm/artifact/archive"
)

// Unpack unpacks the archive. It returns and logs an error, after which everything that reads the artifact fails; it does
// not log that the context has ended. A tarball is read in order, in requests of 64 KiB to 1 MiB. It is called once.
//
// Modes are less the process's umask, which is 0 in Argo's init.
func (a *Artifact) Unpack(ctx context.Context, from archive.Object, size int64) error {
	a.mu.Lock()
	begun := a.begun
	a.begun = true
	a.mu.Unlock()
	if begun {
		return errors.New("the artifact is already unpacked")
	}
	into := &target{a: a}
	err := into.fill(ctx, from, size)
	if err != nil && ctx.Err() == nil {
		a.options.Log.Error("unpack an artifact: its readers get EIO from now on", "name", a.options.Name, "error", err)
	}
	a.finish(err)
	return err
}

// target is the placeholder as a target of an archive.
type target struct {
	a      *Artifact
	exists string // a folder that is there: nobody removes one before the end
	filled bool   // the file, of an artifact that is one
}

func (t *target) fill(ctx context.Context, from archive.Object, size int64) error {
	var err error
	if t.a.plan.Format == archive.Zip {
		err = archive.Unzip(ctx, archive.NewReaderAt(ctx, from, size), size, t)
	} else {
		err = archive.Untar(ctx, archive.NewReader(ctx, from, size), t)
	}
	if err == nil && t.a.folder == nil && !t.filled {
		return errShape(t.a.plan.Top + " is not in the archive")
	}
	return err
}

// below returns where a name of the archive is below the placeholder. It is empty for the placeholder itself.
func (t *target) below(name string) (string, error) {
	top := t.a.plan.Top
	if top == "" {
		return name, nil
	}
	if name == top {
		return "", nil
	}
	rest, ok := strings.CutPrefix(name, top+"/")
	if !ok || t.a.folder == nil {
		return "", errShape("the archive has " + name + " besides " + top)
	}
	return rest, nil
}

// Folder makes a folder.
func (t *target) Folder(name string, mode fs.FileMode) error {
	name, err := t.below(name)
	if err != nil {
		return err
	}
	if t.a.folder == nil {
		return errShape(t.a.plan.Top + " is in the archive as a file and as a folder")
	}
	return t.folder(name, mode)
}

func (t *target) folder(name string, mode fs.FileMode) error {
	if name == "" || name == "." || name == t.exists {
		return nil
	}
	err := t.make(name, mode)
	if errors.Is(err, fs.ErrNotExist) {
		if err := t.folder(path.Dir(name), mode); err != nil {
			return err
		}
		err = t.make(name, mode)
	}
	if errors.Is(err, fs.ErrExist) {
		info, statErr := t.a.folder.Stat(name)
		if statErr != nil || !info.IsDir() {
			return errShape(name + " is in the archive as a folder and as another file")
		}
		err = nil
	}
	if err == nil {
		t.exists = name
	}
	return err
}

func (t *target) make(name string, mode fs.FileMode) error {
	t.a.making.Lock()
	err := t.a.folder.Mkdir(name, mode)
	if err == nil && t.a.options.Recurse && t.a.options.Mode != nil {
		err = t.chmod(name)
	}
	t.a.making.Unlock()
	if err == nil {
		t.a.change(func() {})
	}
	return err
}

func (t *target) chmod(name string) error {
	f, err := t.a.folder.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Chmod(t.a.options.Mode.Perm())
}

// Link makes a symbolic link.
func (t *target) Link(name, to string) error {
	name, err := t.below(name)
	if err != nil {
		return err
	}
	if name == "" || t.a.folder == nil {
		return errShape(t.a.plan.Top + " is in the archive as a link")
	}
	if err := t.folder(path.Dir(name), 0o755); err != nil {
		return err
	}
	if err := t.a.folder.Symlink(to, name); err != nil {
		return t.twice(name, err)
	}
	t.a.change(func() {})
	return nil
}

func (t *target) twice(name string, err error) error {
	if errors.Is(err, fs.ErrExist) {
		return errShape(name + " is in the archive twice")
	}
	return err
}

// File writes a file.
func (t *target) File(f archive.File) error {
	content, err := f.Open()
	if err != nil {
		return err
	}
	defer content.Close()
	name, err := t.below(f.Name)
	if err != nil {
		return err
	}
	if t.a.folder != nil && name == "" || t.filled {
		return errShape(f.Name + " is in the archive twice")
	}
	out, now := t.a.place, t.a.now
	if t.a.folder != nil {
		if err := t.folder(path.Dir(name), f.Above); err != nil {
			return err
		}
		if out, now, err = t.create(name, f); err != nil {
			return t.twice(name, err)
		}
		defer out.Close()
	}
	t.filled = t.a.folder == nil
	if err := t.write(out, now, content); err != nil {
		return err
	}
	if err := setTimes(out, f.Accessed, f.Modified); err != nil {
		return err
	}
	t.a.making.Lock()
	t.a.now = nil
	t.a.making.Unlock()
	t.a.change(func() { now.whole = true })
	return nil
}

// create makes a file whose content is arriving before anybody sees it.
func (t *target) create(name string, f archive.File) (*os.File, *arriving, error) {
	t.a.making.Lock()
	defer t.a.change(func() {})
	defer t.a.making.Unlock()
	out, err := t.a.folder.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_RDWR, f.Mode)
	if err != nil {
		return nil, nil, err
	}
	if t.a.options.Recurse && t.a.options.Mode != nil {
		err = out.Chmod(t.a.options.Mode.Perm())
	}
	var info unix.Stat_t
	if err == nil {
		err = unix.Fstat(int(out.Fd()), &info)
	}
	now := &arriving{ino: info.Ino, size: f.Size, modified: f.Modified}
	t.a.now = now
	if err != nil {
		out.Close()
	}
	return out, now, err
}

// write copies content, and announces what has arrived.
func (t *target) write(out io.Writer, now *arriving, content io.Reader) error {
	p := make([]byte, min(max(now.size, 512), 256<<10))
	for {
		n, err := content.Read(p)
		if n > 0 {
			if _, err := out.Write(p[:n]); err != nil {
				return err
			}
			t.a.change(func() { now.written += int64(n) })
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// setTimes sets those times of a file that are not zero.
func setTimes(f *os.File, accessed, modified time.Time) error {
	if accessed.IsZero() && modified.IsZero() {
		return nil
	}
	times := [2]unix.Timespec{timespec(accessed), timespec(modified)}
	// Package unix has no futimens, and a name may not be the file's any more.
	_, _, errno := unix.Syscall6(unix.SYS_UTIMENSAT, f.Fd(), 0, uintptr(unsafe.Pointer(&times)), 0, 0, 0)
	if errno != 0 {
		return &os.PathError{Op: "utimensat", Path: f.Name(), Err: errno}
	}
	return nil
}

func timespec(t time.Time) unix.Timespec {
	if t.IsZero() {
		return unix.Timespec{Nsec: unix.UTIME_OMIT}
	}
	ts, err := unix.TimeToTimespec(t)
	if err != nil {
		return unix.Timespec{Nsec: unix.UTIME_OMIT}
	}
	return ts
}

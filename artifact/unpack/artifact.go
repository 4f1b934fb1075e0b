package unpack

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/wasmshim/containerd-shim-wasm/artifact/archive"
)

// Options are those of an artifact.
type Options struct {
	Name    string       // of the artifact, in the log
	Mode    *fs.FileMode // permissions of the artifact, if they are not those in the archive
	Recurse bool         // give them to all that is in it, too
	Log     *slog.Logger
}

// Artifact is an archive that is unpacked into a placeholder: an empty folder, or an empty file.
type Artifact struct {
	plan    archive.Plan
	options Options
	folder  *os.Root // nil for a file
	place   *os.File // the placeholder

	// making is held while an entry is made until it has all its attributes.
	making sync.RWMutex
	now    *arriving // what is being written, guarded by making

	mu      sync.Mutex
	err     error
	ended   bool
	begun   bool
	changed chan struct{} // closed at the next change, if somebody waits for one
	waiting int           // requests that wait

	gone     chan struct{} // closed when nobody is served any more
	hangUp   sync.Once
	finished chan struct{} // closed at the end
}

// arriving is a file that is being written.
type arriving struct {
	ino      uint64
	size     int64
	modified time.Time // zero for the time of unpacking

	// Guarded by the artifact's mu.
	written int64
	whole   bool
}

// errShape is the error about an archive that is not what was planned.
type errShape string

func (e errShape) Error() string {
	return string(e) + ": it was not expected from its first part; the annotation wasm.shim/download-artifacts has the pod's artifacts unpacked before its containers start"
}

// NewFolder returns an artifact of kind [archive.Tree]. The folder is empty. The artifact takes it over.
func NewFolder(plan archive.Plan, folder *os.Root, o Options) (*Artifact, error) {
	if plan.Kind != archive.Tree {
		folder.Close()
		return nil, errors.New("the artifact is no folder")
	}
	place, err := folder.Open(".")
	if err != nil {
		folder.Close()
		return nil, err
	}
	names, _ := place.Readdirnames(1)
	if len(names) > 0 {
		folder.Close()
		place.Close()
		return nil, fmt.Errorf("the folder %s is not empty", folder.Name())
	}
	return newArtifact(plan, folder, place, o)
}

// NewFile returns an artifact of kind [archive.Regular]. The file is empty, regular and open for reading and writing. The
// artifact takes it over.
func NewFile(plan archive.Plan, file *os.File, o Options) (*Artifact, error) {
	info, err := file.Stat()
	switch {
	case plan.Kind != archive.Regular:
		err = errors.New("the artifact is no file")
	case err == nil && (!info.Mode().IsRegular() || info.Size() > 0):
		err = fmt.Errorf("%s is not an empty regular file", file.Name())
	}
	if err != nil {
		file.Close()
		return nil, err
	}
	return newArtifact(plan, nil, file, o)
}

func newArtifact(plan archive.Plan, folder *os.Root, place *os.File, o Options) (*Artifact, error) {
	a := &Artifact{plan: plan, options: o, folder: folder, place: place, gone: make(chan struct{}), finished: make(chan struct{})}
	mode := plan.Mode
	if o.Mode != nil {
		mode = *o.Mode
	}
	// It has its mode from the beginning on.
	err := place.Chmod(mode.Perm())
	if err == nil && folder == nil {
		var info unix.Stat_t
		err = unix.Fstat(int(place.Fd()), &info)
		a.now = &arriving{ino: info.Ino, size: plan.Size, modified: plan.Modified}
	}
	if err != nil {
		a.close()
		return nil, err
	}
	return a, nil
}

// Close closes the placeholder. Nobody may use the artifact any more: unpacking and the server have ended.
func (a *Artifact) Close() {
	a.finish(os.ErrClosed)
	a.close()
}

func (a *Artifact) close() {
	a.place.Close()
	if a.folder != nil {
		a.folder.Close()
	}
}

// Done is closed when the archive is unpacked, or that has failed.
func (a *Artifact) Done() <-chan struct{} { return a.finished }

// Err returns the error of unpacking, nil before its end.
func (a *Artifact) Err() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.err
}

// finish ends all waits.
func (a *Artifact) finish(err error) {
	a.making.Lock()
	a.mu.Lock()
	defer a.mu.Unlock()
	defer a.making.Unlock()
	if a.ended {
		return
	}
	if err == nil {
		a.now = nil
	}
	a.ended, a.err = true, err
	close(a.finished)
	a.wake()
}

// wake wakes who waits. The caller holds mu.
func (a *Artifact) wake() {
	if a.changed != nil {
		close(a.changed)
		a.changed = nil
	}
}

// change makes a change that others may wait for.
func (a *Artifact) change(make func()) {
	a.mu.Lock()
	defer a.mu.Unlock()
	make()
	a.wake()
}

// wait waits until something is true, or the archive has ended. It is an error if that has failed. The function is called
// without a lock held.
func (a *Artifact) wait(ctx context.Context, until func() bool) error {
	for {
		a.mu.Lock()
		ended, err := a.ended, a.err
		if a.changed == nil && !ended {
			a.changed = make(chan struct{})
		}
		changed := a.changed
		a.mu.Unlock()
		if err != nil {
			return unix.EIO
		}
		if ended || until() {
			return nil
		}
		if err := a.waitFor(ctx, changed); err != nil {
			return err
		}
	}
}

func (a *Artifact) waitFor(ctx context.Context, changed <-chan struct{}) error {
	a.count(+1)
	defer a.count(-1)
	select {
	case <-changed:
		return nil
	case <-ctx.Done():
		return unix.EINTR
	case <-a.gone:
		return unix.ENOTCONN
	}
}

func (a *Artifact) count(n int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.waiting += n
}

// check returns EIO if unpacking has failed.
func (a *Artifact) check() error { return a.wait(context.Background(), func() bool { return true }) }

func (a *Artifact) waitEnd(ctx context.Context) error {
	return a.wait(ctx, func() bool { return false })
}

// waitWhole waits until a file has arrived.
func (a *Artifact) waitWhole(ctx context.Context, ino uint64) error {
	return a.wait(ctx, func() bool { return a.arriving(ino) == nil })
}

// arriving returns what is being written, if that is this file.
func (a *Artifact) arriving(ino uint64) *arriving {
	a.making.RLock()
	defer a.making.RUnlock()
	if a.now != nil && a.now.ino == ino {
		return a.now
	}
	return nil
}

// waitBytes waits until a file has arrived up to an offset.
func (a *Artifact) waitBytes(ctx context.Context, f *arriving, end int64) error {
	return a.wait(ctx, func() bool {
		a.mu.Lock()
		defer a.mu.Unlock()
		return f.whole || f.written >= min(end, f.size)
	})
}

package output

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/encrypt"
	"golang.org/x/sync/errgroup"

	"github.com/wasmshim/containerd-shim-wasm/artifact/mount"
	"github.com/wasmshim/containerd-shim-wasm/artifact/progress"
)

// Output is what is stored of a mount.
type Output struct {
	Name   string // for logs and errors
	Path   string // of a file of the mount, with slashes; "." for all that it has
	Client *minio.Core
	Bucket string
	Key    string // of a folder, a prefix that ends with "/" or is empty, unless Archive
	// Archive stores the folder as one tarball with gzip.
	Archive bool
	// Always stores the output of a task that has failed, too.
	Always bool
	SSE    encrypt.ServerSide // nil for none
	of     *Outputs           // those of its mount
}

func (w Output) isFolder() bool { return w.Path == "." && !w.Archive }

// Upload is an upload in parts, invisible until it is completed.
type Upload struct{ Bucket, Key, ID string }

// Options are those of all outputs of one mount.
type Options struct {
	Spool    *os.Root    // for what is not stored yet
	Room     *mount.Room // of it
	Mode     fs.FileMode // of the mount's folder
	UID, GID uint32      // of the mount's folder
	Log      *slog.Logger
	// Noted is called before the first part of an upload is sent, and when the upload has ended.
	Noted func(u Upload, ended bool)
}

// Outputs are those of one mount.
type Outputs struct {
	Options
	wanted []Output
	server *mount.Server
	grown  chan struct{}
	stop   context.CancelFunc
	sender sync.WaitGroup

	mu      sync.Mutex
	uploads map[target]*upload
	states  map[string]string // by the name of an output
	stored  map[string]int64  // bytes that were sent, by the name of an output
}

// target is an object of an output.
type target struct {
	output *Output
	key    string
}

// New returns the outputs of one mount.
func New(wanted []Output, o Options) *Outputs {
	all := &Outputs{Options: o, wanted: wanted, grown: make(chan struct{}, 1), uploads: map[target]*upload{}, states: map[string]string{}, stored: map[string]int64{}}
	for i := range wanted {
		wanted[i].of = all
	}
	return all
}

// Serve serves the mount by a descriptor of /dev/fuse, which has been mounted as a folder. It takes the descriptor over.
func (o *Outputs) Serve(device *os.File) error {
	var err error
	o.server, err = mount.ServeTree(device, mount.Tree{
		Mode: o.Mode, UID: o.UID, GID: o.GID, Spool: o.Spool, Room: o.Room, Keep: true, MaxSize: maxParts * mount.PartSize,
		Grown: func() {
			select {
			case o.grown <- struct{}{}:
			default: // somebody is about to look already
			}
		},
	}, o.Log)
	if err != nil {
		return err
	}
	ctx, stop := context.WithCancel(context.Background())
	o.stop = stop
	o.sender.Go(func() { o.send(ctx) })
	return nil
}

// send sends parts of large files while the task runs. An error ends the upload of that file; all of it is sent at the end.
func (o *Outputs) send(ctx context.Context) {
	for {
		select {
		case <-o.grown:
		case <-ctx.Done():
			return
		}
		for i := range o.wanted {
			if w := &o.wanted[i]; !w.Archive {
				o.sendGrown(ctx, w)
			}
		}
	}
}

func (o *Outputs) sendGrown(ctx context.Context, w *Output) {
	files, err := o.files(w)
	if err != nil {
		return // it is said at the end, if it is still so
	}
	for key, content := range files {
		whole := content.Size() / mount.PartSize
		if whole == 0 {
			continue
		}
		u := o.upload(target{w, key}, content)
		if u.failed {
			continue
		}
		if err := u.sendNew(ctx, whole); err != nil && ctx.Err() == nil {
			u.failed = true
			o.Log.Warn("upload a part of an output while it is written: it is sent again when the task has ended", "name", w.Name, "bucket", w.Bucket, "key", key, "error", err)
		}
	}
}

// upload returns the upload of a file. One of another file that had its name is aborted.
func (o *Outputs) upload(t target, c content) *upload {
	o.mu.Lock()
	defer o.mu.Unlock()
	old := o.uploads[t]
	if old != nil && old.content == c {
		return old
	}
	u := &upload{of: o, target: t, content: c, before: old, parts: map[int64]part{}}
	o.uploads[t] = u
	return u
}

// abortLimit bounds the end of uploads that are not completed, of which so many are ended at the same time.
const (
	abortLimit   = 10 * time.Second
	abortsAtOnce = 8
)

// Finish is for a task that has ended: it stores the outputs of one that has succeeded, all or none of all mounts as far as
// that can be, and of one that has failed those that ask for it, each by itself. Nothing can be written any more.
func Finish(ctx context.Context, all []*Outputs, succeeded bool) error {
	var failed error
	var wanted []*Output
	for _, o := range all {
		if o.server == nil {
			continue
		}
		o.end()
		for i := range o.wanted {
			w := &o.wanted[i]
			switch {
			case succeeded:
				wanted = append(wanted, w)
			case w.Always:
				failed = errors.Join(failed, store(ctx, w))
			default:
				o.note(w, "not stored: the task has failed")
			}
		}
	}
	failed = errors.Join(failed, store(ctx, wanted...))
	for _, o := range all {
		failed = errors.Join(failed, o.discard())
	}
	return failed
}

// store stores outputs. Their order: whatever fails before all parts of all of them are in the store leaves nothing
// visible.
func store(ctx context.Context, wanted ...*Output) error {
	var all []*pending
	defer func() {
		for _, p := range all {
			p.done()
		}
	}()
	for _, w := range wanted {
		some, err := w.of.gather(ctx, w)
		all = append(all, some...)
		if err != nil {
			return w.of.fail(w, err)
		}
	}
	for _, step := range []func(*pending, context.Context) error{(*pending).prepare, (*pending).show} {
		for _, p := range all {
			if err := step(p, ctx); err != nil {
				return p.output.of.fail(p.output, fmt.Errorf("s3://%s/%s: %w", p.output.Bucket, p.key, err))
			}
		}
	}
	return nil
}

// fail notes and names the error of an output.
func (o *Outputs) fail(w *Output, err error) error {
	o.note(w, progress.Failed+err.Error())
	return fmt.Errorf("store output %s: %w", w.Name, err)
}

func (o *Outputs) note(w *Output, state string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.states[w.Name] = state
}

// Abort ends all uploads: nothing of them becomes visible, and the store keeps no parts.
func (o *Outputs) Abort() error {
	o.end()
	return o.discard()
}

// end stops what goes on while the task runs.
func (o *Outputs) end() {
	if o.server == nil {
		return
	}
	o.server.Freeze()
	o.stop()
	o.sender.Wait()
}

// discard aborts uploads that have not ended, and frees the files.
func (o *Outputs) discard() error {
	o.mu.Lock()
	all := o.uploads
	o.uploads = map[target]*upload{}
	o.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), abortLimit)
	defer cancel()
	var aborting errgroup.Group
	aborting.SetLimit(abortsAtOnce)
	var mu sync.Mutex
	var failed error
	for _, u := range all {
		aborting.Go(func() error {
			if err := u.abort(ctx); err != nil {
				mu.Lock()
				defer mu.Unlock()
				failed = errors.Join(failed, err)
			}
			return nil
		})
	}
	_ = aborting.Wait() // all have been tried
	if o.server != nil {
		o.server.Close()
		o.server.Discard()
		o.server = nil
	}
	return failed
}

// Abort aborts an upload, perhaps one that another process has begun. A part that was on its way may bring it back, so it
// looks whether the store still has the upload, if it may, and aborts it again.
func Abort(ctx context.Context, client *minio.Core, u Upload) error {
	for looks := 0; ; {
		err := client.AbortMultipartUpload(ctx, u.Bucket, u.Key, u.ID)
		if err != nil && !isGone(err) {
			return fmt.Errorf("abort an upload to s3://%s/%s: %w", u.Bucket, u.Key, err)
		}
		if isGone(err) {
			return nil
		}
		_, err = client.ListObjectParts(ctx, u.Bucket, u.Key, u.ID, 0, 1)
		if err != nil {
			looks++
		}
		if isGone(err) || looks == 3 {
			return nil // or the store does not say: a role may abort uploads, and not look at them
		}
		select {
		case <-time.After(again):
		case <-ctx.Done():
			return fmt.Errorf("abort an upload to s3://%s/%s: the store still has it: %w", u.Bucket, u.Key, ctx.Err())
		}
	}
}

func isGone(err error) bool {
	var response minio.ErrorResponse
	return errors.As(err, &response) && response.Code == "NoSuchUpload"
}

// again is the time between two attempts to abort an upload.
const again = 100 * time.Millisecond

// Progress says how far an output is.
type Progress struct {
	Name  string
	Sent  int64 // bytes, with those that were sent again
	State string
}

// Progress returns how far each output is.
func (o *Outputs) Progress() []Progress {
	o.mu.Lock()
	defer o.mu.Unlock()
	var all []Progress
	for _, w := range o.wanted {
		all = append(all, Progress{w.Name, o.stored[w.Name], o.states[w.Name]})
	}
	return all
}

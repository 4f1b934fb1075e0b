package output

import (
	"context"
	"crypto/md5"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"mime"
	"path"
	"sync"
	"time"

	"github.com/minio/minio-go/v7"
	"golang.org/x/sync/errgroup"

	"github.com/wasmshim/containerd-shim-wasm/artifact/mount"
)

// content is what is stored: a file of the mount, or a packed one.
type content interface {
	io.ReaderAt
	Size() int64
	// Changes returns another number after a part of [mount.PartSize] has been changed.
	Changes(part int64) [2]int64
}

// maxParts is the greatest number of parts that S3 takes.
const maxParts = 10_000

// upload is the upload of one file in parts. Only one goroutine calls its methods at a time.
type upload struct {
	of      *Outputs
	target  target
	content content
	id      string  // "" before it begins
	before  *upload // of another file with the name, to be aborted
	failed  bool    // the store has refused a part: the rest waits for the end of the task

	mu    sync.Mutex
	parts map[int64]part
}

// part is a part as it was sent.
type part struct {
	etag    string
	size    int64
	changes [2]int64
}

// sendNew sends those of the first n parts that have not been sent.
func (u *upload) sendNew(ctx context.Context, n int64) error {
	if err := u.begin(ctx); err != nil {
		return err
	}
	var missing []int64
	for i := range n {
		if _, sent := u.parts[i]; !sent {
			missing = append(missing, i)
		}
	}
	return u.sendAll(ctx, missing, n*mount.PartSize)
}

// atOnce is how many parts of a file are sent at the same time.
const atOnce = 3

// sendAll sends parts of the file's first size bytes.
func (u *upload) sendAll(ctx context.Context, numbers []int64, size int64) error {
	all, ctx := errgroup.WithContext(ctx)
	all.SetLimit(atOnce)
	for _, i := range numbers {
		all.Go(func() error { return u.send(ctx, i, min(mount.PartSize, size-i*mount.PartSize)) })
	}
	return all.Wait()
}

// beginLimit bounds the request that begins an upload.
const beginLimit = 10 * time.Second

// begin begins the upload in the store.
func (u *upload) begin(ctx context.Context) error {
	if err := u.abortBefore(ctx); err != nil || u.id != "" {
		return err
	}
	// A request that is called off may have begun an upload whose id nobody knows.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), beginLimit)
	defer cancel()
	w := u.target.output
	id, err := w.Client.NewMultipartUpload(ctx, w.Bucket, u.target.key, w.options(u.target.key))
	if err != nil {
		return err
	}
	u.id = id
	u.note(false)
	return nil
}

func (u *upload) note(ended bool) {
	if u.of.Noted != nil {
		u.of.Noted(Upload{u.target.output.Bucket, u.target.key, u.id}, ended)
	}
}

// options are those of a request that makes an object.
func (w *Output) options(key string) minio.PutObjectOptions {
	o := minio.PutObjectOptions{ServerSideEncryption: w.SSE, ContentType: mime.TypeByExtension(path.Ext(key)), DisableMultipart: true}
	if o.ContentType == "" {
		o.ContentType = "application/octet-stream"
	}
	return o
}

// grace is how long a part may still take that is on its way when the upload is called off.
const grace = 2 * time.Second

// partLimit bounds the request for one part: a store that takes no bytes must not keep a task from ending.
const partLimit = 5 * time.Minute

// lenient returns a context that ends some time after ctx, and after partLimit. A part that arrives after its upload was
// aborted brings that back ("API_AbortMultipartUpload" of Amazon's S3 API reference), so those on their way are waited for.
func lenient(ctx context.Context) (context.Context, context.CancelFunc) {
	late, cancel := context.WithTimeout(context.WithoutCancel(ctx), partLimit)
	stop := context.AfterFunc(ctx, func() { time.AfterFunc(grace, cancel) })
	return late, func() { stop(); cancel() }
}

// send sends a part. One that was sent before is replaced.
func (u *upload) send(ctx context.Context, i, size int64) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	ctx, cancel := lenient(ctx)
	defer cancel()
	w := u.target.output
	changes := u.content.Changes(i) // before it is read
	sent, err := w.Client.PutObjectPart(ctx, w.Bucket, u.target.key, u.id, int(i)+1, io.NewSectionReader(u.content, i*mount.PartSize, size), size,
		minio.PutObjectPartOptions{SSE: w.SSE})
	if err != nil {
		return err
	}
	u.mu.Lock()
	u.parts[i] = part{sent.ETag, size, changes}
	u.mu.Unlock()
	u.of.count(w, size)
	return nil
}

func (o *Outputs) count(w *Output, n int64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.stored[w.Name] += n
}

// abortBefore aborts the upload of another file that had the name.
func (u *upload) abortBefore(ctx context.Context) error {
	if u.before == nil {
		return nil
	}
	if err := u.before.abort(ctx); err != nil {
		return err
	}
	u.before = nil
	return nil
}

// abort aborts the upload if it has begun.
func (u *upload) abort(ctx context.Context) error {
	if err := u.abortBefore(ctx); err != nil || u.id == "" {
		return err
	}
	w := u.target.output
	if err := Abort(ctx, w.Client, Upload{w.Bucket, u.target.key, u.id}); err != nil {
		return err
	}
	u.note(true)
	u.id, u.parts = "", map[int64]part{}
	return nil
}

// pending is an object that is going to be stored.
type pending struct {
	output *Output
	key    string
	from   content
	upload *upload // of a file that needs parts
	done   func()  // frees from
}

// prepare sends all parts of a large file that have not been sent as they are now.
func (p *pending) prepare(ctx context.Context) error {
	u := p.upload
	if u == nil {
		return nil
	}
	size := u.content.Size()
	if size > maxParts*mount.PartSize { // an archive: the mount has no such file
		return fmt.Errorf("it has more than %d parts of %d MiB, which S3 does not take", maxParts, mount.PartSize>>20)
	}
	if err := u.begin(ctx); err != nil {
		return err
	}
	var missing []int64
	for i := int64(0); i*mount.PartSize < size; i++ {
		n := min(mount.PartSize, size-i*mount.PartSize)
		if sent, ok := u.parts[i]; !ok || sent.size != n || sent.changes != u.content.Changes(i) {
			missing = append(missing, i)
		}
	}
	return u.sendAll(ctx, missing, size)
}

// show makes the object visible.
func (p *pending) show(ctx context.Context) error {
	if p.upload != nil {
		return p.upload.complete(ctx)
	}
	ctx, cancel := lenient(ctx)
	defer cancel()
	size := p.from.Size()
	_, err := p.output.Client.Client.PutObject(ctx, p.output.Bucket, p.key, io.NewSectionReader(p.from, 0, size), size, p.output.options(p.key))
	if err == nil {
		p.output.of.count(p.output, size)
		p.output.of.note(p.output, "stored")
	}
	return err
}

func (u *upload) complete(ctx context.Context) error {
	w, size := u.target.output, u.content.Size()
	var parts []minio.CompletePart
	for i := int64(0); i*mount.PartSize < size; i++ {
		sent, ok := u.parts[i]
		if !ok {
			return errors.New("a part is missing")
		}
		parts = append(parts, minio.CompletePart{PartNumber: int(i) + 1, ETag: sent.etag})
	}
	_, err := w.Client.CompleteMultipartUpload(ctx, w.Bucket, u.target.key, u.id, parts, minio.PutObjectOptions{ServerSideEncryption: w.SSE})
	if err != nil && !u.isComplete(ctx, parts) {
		return err
	}
	u.note(true)
	u.id = ""
	u.of.note(w, "stored")
	return nil
}

// isComplete reports whether the store has completed the upload although it has not said so: the object is there, with the
// ETag that these parts give.
func (u *upload) isComplete(ctx context.Context, parts []minio.CompletePart) bool {
	sums := md5.New()
	for _, p := range parts {
		sum, err := hex.DecodeString(p.ETag)
		if err != nil {
			return false // of an encrypted part
		}
		sums.Write(sum)
	}
	w := u.target.output
	info, err := w.Client.StatObject(ctx, w.Bucket, u.target.key, minio.StatObjectOptions{ServerSideEncryption: w.SSE})
	return err == nil && info.ETag == fmt.Sprintf("%x-%d", sums.Sum(nil), len(parts))
}

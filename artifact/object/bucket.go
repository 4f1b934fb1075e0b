package object

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/encrypt"
	"github.com/minio/minio-go/v7/pkg/s3utils"
)

// Bucket is a bucket of a store.
type Bucket struct {
	Client *minio.Core
	Name   string
	SSE    encrypt.ServerSide // the customer's key of its objects (SSE-C), or nil
}

// customer returns the customer's key as a text, or "".
func (b Bucket) customer() string {
	if b.SSE == nil {
		return ""
	}
	header := http.Header{}
	b.SSE.Marshal(header)
	return fmt.Sprint(header)
}

// Info describes an object as it was when the store was asked.
type Info struct {
	Key      string
	Size     int64
	ETag     string // without quotes
	Version  string // "" for the newest
	Modified time.Time
	Sum      Sum
}

// Stat describes an object. The error of the store is kept: errors.As finds a [minio.ErrorResponse].
func (b Bucket) Stat(ctx context.Context, key string) (Info, error) {
	return b.StatVersion(ctx, key, "")
}

// StatVersion describes a version of an object.
func (b Bucket) StatVersion(ctx context.Context, key, version string) (Info, error) {
	found, err := b.Client.StatObject(ctx, b.Name, key, minio.StatObjectOptions{VersionID: version, ServerSideEncryption: b.SSE, Checksum: true})
	if err != nil {
		return Info{}, &Error{Bucket: b.Name, Key: key, Err: b.reason(ctx, key, version, err)}
	}
	info := InfoOf(key, found)
	info.Version = version
	return info, nil
}

// reason returns why a HEAD request was refused. The answer to one has no body, and so a status 400 does not say that a
// customer's key is missing; that to GET does.
func (b Bucket) reason(ctx context.Context, key, version string, refused error) error {
	var response minio.ErrorResponse
	if !errors.As(refused, &response) || response.StatusCode != http.StatusBadRequest || response.Code != response.Message {
		return refused
	}
	options := minio.GetObjectOptions{VersionID: version, ServerSideEncryption: b.SSE}
	options.Set("Range", "bytes=0-0")
	body, _, _, err := b.Client.GetObject(ctx, b.Name, key, options)
	if err == nil {
		body.Close()
		return refused
	}
	return err
}

// InfoOf returns what a store has said of an object in answer to a HEAD request, which should ask for checksums.
func InfoOf(key string, o minio.ObjectInfo) Info {
	return Info{Key: key, Size: o.Size, ETag: o.ETag, Modified: o.LastModified, Sum: sumOf(o)}
}

// List yields the objects whose keys begin with prefix, in the order of the store. After an error it yields nothing.
// Objects that stand for folders, with a slash at the end of the key, are among them.
func (b Bucket) List(ctx context.Context, prefix string) iter.Seq2[Info, error] {
	return func(yield func(Info, error) bool) {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel() // it ends the list
		for o := range b.Client.Client.ListObjects(ctx, b.Name, minio.ListObjectsOptions{Prefix: prefix, Recursive: true}) {
			if o.Err != nil {
				yield(Info{}, &Error{Bucket: b.Name, Key: prefix, Err: o.Err})
				return
			}
			if err := s3utils.CheckValidObjectName(o.Key); err != nil { // a longer one than S3 has
				yield(Info{}, &Error{Bucket: b.Name, Key: prefix, Err: err})
				return
			}
			if !yield(Info{Key: o.Key, Size: o.Size, ETag: strings.Trim(o.ETag, `"`), Modified: o.LastModified, Sum: sumOf(o)}, nil) {
				return
			}
		}
		if err := ctx.Err(); err != nil { // a list that is called off may end without an error
			yield(Info{}, &Error{Bucket: b.Name, Key: prefix, Err: err})
		}
	}
}

// MaxList bounds the memory for the list of a folder's files, in bytes: a store may list files without end. A file takes
// about listed bytes and its key.
const (
	MaxList = 128 << 20
	listed  = 650
)

// TooManyError is the error of a folder whose list takes more than MaxList.
type TooManyError struct{ Files int }

func (e *TooManyError) Error() string {
	return fmt.Sprintf("the folder has too many files: after %d of them their list takes more than %d MiB of memory", e.Files, MaxList>>20)
}

// Files yields the objects below a prefix as List does, without those that stand for folders. It ends with a
// [TooManyError] before their list takes too much memory.
func (b Bucket) Files(ctx context.Context, prefix string) iter.Seq2[Info, error] {
	return func(yield func(Info, error) bool) {
		files, room := 0, MaxList
		for info, err := range b.List(ctx, prefix) {
			if err != nil {
				yield(info, err)
				return
			}
			if room -= len(info.Key) + listed; room < 0 {
				yield(Info{}, &TooManyError{files})
				return
			}
			if strings.HasSuffix(info.Key, "/") {
				continue
			}
			if files++; !yield(info, nil) {
				return
			}
		}
	}
}

// open requests the bytes from off until end. The body has exactly those bytes of the pinned version, or ends early.
// encrypted is [isEncrypted] of the answer: a list does not say it.
func (b Bucket) open(ctx context.Context, info Info, off, end int64) (body io.ReadCloser, encrypted bool, err error) {
	options := minio.GetObjectOptions{VersionID: info.Version, ServerSideEncryption: b.SSE}
	options.Set("Range", fmt.Sprintf("bytes=%d-%d", off, end-1)) // SetRange takes 0-0 for all
	if info.ETag != "" {
		options.Set("If-Match", `"`+info.ETag+`"`)
	}
	body, answer, header, err := b.Client.GetObject(ctx, b.Name, info.Key, options)
	if err != nil {
		return nil, false, err
	}
	if err := pinned(info, answer, header.Get("Content-Range"), off, end); err != nil {
		body.Close()
		return nil, false, err
	}
	return body, isEncrypted(header), nil
}

// pinned reports in which way an answer is not that for the bytes from off until end of the pinned version.
func pinned(info Info, answer minio.ObjectInfo, contentRange string, off, end int64) error {
	if answer.ETag != info.ETag {
		return fmt.Errorf("%w: ETag %q, pinned %q", ErrReplaced, answer.ETag, info.ETag)
	}
	// A list has fractions of seconds, and the header Last-Modified has none.
	if at, pinned := answer.LastModified.Unix(), info.Modified.Unix(); info.ETag == "" && at != pinned {
		return fmt.Errorf("%w: modified at %d, pinned %d", ErrReplaced, at, pinned)
	}
	if contentRange == "" && off == 0 && end == info.Size && answer.Size == info.Size {
		return nil // a server may answer with the whole
	}
	var first, last int64
	span, size, _ := strings.Cut(strings.TrimPrefix(contentRange, "bytes "), "/")
	if n, _ := fmt.Sscanf(span, "%d-%d", &first, &last); n != 2 || first != off || last != end-1 || answer.Size != end-off {
		return fmt.Errorf("%w: asked for bytes %d-%d, got %q with %d bytes", errRange, off, end-1, contentRange, answer.Size)
	}
	if size != "*" && size != strconv.FormatInt(info.Size, 10) {
		return fmt.Errorf("%w: %s bytes, pinned %d", ErrReplaced, size, info.Size)
	}
	return nil
}

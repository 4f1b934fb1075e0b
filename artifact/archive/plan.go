package archive

import (
	"context"
	"io"
	"io/fs"
	"time"
)

// Object is an object of a store. ReadAt is as io.ReaderAt's.
type Object interface {
	ReadAt(ctx context.Context, p []byte, off int64) (int, error)
}

// Format is the format of an archive.
type Format int

// Formats of archives. Auto is a tarball if it begins like one, and no archive otherwise.
const (
	Auto Format = iota
	Tar         // compressed by gzip
	Zip
)

// Kind is what an artifact becomes when it is unpacked.
type Kind int

// Kinds of artifacts.
const (
	Unknown Kind = iota // it has to be unpacked to know
	Plain               // the object is no archive: the artifact is the object
	Regular             // a regular file
	Tree                // a folder
)

// Plan says what an artifact becomes.
type Plan struct {
	Kind   Kind
	Format Format // of an archive, never Auto
	// Top is the only file or folder at the top of the archive, which becomes the artifact. It is empty if the artifact is
	// a folder with all of the archive.
	Top      string
	Size     int64       // of a regular file
	Mode     fs.FileMode // permissions of the file or the folder
	Modified time.Time   // of a regular file, zero for the time of unpacking
	Reason   string      // why the kind is not known
}

func unknown(reason string) Plan { return Plan{Reason: reason} }

// reader reads an object from its beginning, in requests that grow.
type reader struct {
	ctx   context.Context
	from  Object
	off   int64
	size  int64 // nothing is read from here on
	limit int64 // a read from here on is an error
	chunk []byte
	left  []byte // of the chunk
	err   error  // the first error of the object, or errLimit
}

const (
	firstRequest = 64 << 10
	lastRequest  = 1 << 20
)

func (r *reader) Read(p []byte) (int, error) {
	if len(r.left) == 0 {
		if err := r.fill(); err != nil {
			return 0, err
		}
	}
	n := copy(p, r.left)
	r.left = r.left[n:]
	return n, nil
}

// ReadByte keeps package compress/flate from reading ahead by a buffer of its own.
func (r *reader) ReadByte() (byte, error) {
	if len(r.left) == 0 {
		if err := r.fill(); err != nil {
			return 0, err
		}
	}
	b := r.left[0]
	r.left = r.left[1:]
	return b, nil
}

func (r *reader) fill() error {
	if r.err != nil {
		return r.err
	}
	if r.off >= r.size {
		return io.EOF
	}
	if r.off >= r.limit {
		r.err = errLimit
		return r.err
	}
	if len(r.chunk) < lastRequest {
		r.chunk = make([]byte, min(lastRequest, max(firstRequest, 2*len(r.chunk))))
	}
	n, err := readFull(r.ctx, r.from, r.chunk[:min(int64(len(r.chunk)), r.size-r.off, r.limit-r.off)], r.off)
	if err != nil {
		r.err = err
		return err
	}
	r.off += int64(n)
	r.left = r.chunk[:n]
	return nil
}

// readFull reads all of p. An object that ends before is an error.
func readFull(ctx context.Context, from Object, p []byte, off int64) (int, error) {
	n, err := from.ReadAt(ctx, p, off)
	if n == len(p) {
		return n, nil
	}
	if err == nil || err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

// NewReader returns a reader of an object from its beginning. It asks for 64 KiB first, and for 1 MiB at most.
func NewReader(ctx context.Context, from Object, size int64) io.Reader {
	return &reader{ctx: ctx, from: from, size: size, limit: size}
}

// NewReaderAt returns an object as an io.ReaderAt. The context ends its reads.
func NewReaderAt(ctx context.Context, from Object, size int64) io.ReaderAt {
	return &readerAt{ctx: ctx, from: from, size: size}
}

type readerAt struct {
	ctx  context.Context
	from Object
	size int64
	err  error // the last error of the object
}

func (r *readerAt) ReadAt(p []byte, off int64) (int, error) {
	short := error(nil)
	if left := max(r.size-off, 0); int64(len(p)) > left {
		p, short = p[:left], io.EOF
	}
	if len(p) == 0 {
		return 0, short
	}
	n, err := readFull(r.ctx, r.from, p, off)
	if err != nil {
		r.err = err
		return n, err
	}
	return n, short
}

package archive

import (
	"archive/tar"
	"compress/gzip"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"path"
	"strings"
)

// Bounds of what Look reads of a tarball, in bytes: from its beginning, as it is and unpacked. Four bytes at its end and
// two requests for them come in addition. Of a zip file it reads the list of files, which has at most 16 MiB.
const (
	LookLimit    = 1 << 20
	unpackedLook = 64 << 20
)

var errLimit = errors.New("the rest of the archive is not read")

// Look says what an object becomes when it is unpacked as Argo's init does. Its error is one of the object. What it says
// is exact for an archive that is whole, with two assumptions about tarballs of which it has not seen the end:
//
//   - A tarball whose first entry is a folder at the top, in the way of Argo's own tarballs, has nothing beside that
//     folder. Argo's way is a name without a slash at its end, and the header that Go's gzip writes. GNU tar, bsdtar and
//     Python's tarfile write the slash.
//   - A tarball whose first entry is a file at the top, and whose length unpacked (gzip's ISIZE) is that of this file and
//     the end of a tarball, has only one member of gzip.
//
// Who unpacks it must check both: unpacking fails if the archive turns out to be another one.
func Look(ctx context.Context, from Object, size int64, as Format) (Plan, error) {
	if as == Zip {
		return lookIntoZip(ctx, from, size)
	}
	r := &reader{ctx: ctx, from: from, size: size, limit: LookLimit}
	l := &look{from: from, size: size, in: r, shape: shape{kinds: map[string]made{}}}
	plan, err := l.tarball(as)
	if r.err != nil && !errors.Is(r.err, errLimit) {
		return Plan{}, r.err
	}
	return plan, err
}

// look is a look into a tarball.
type look struct {
	from  Object
	size  int64
	in    *reader
	shape shape
}

func (l *look) tarball(as Format) (Plan, error) {
	none := Plan{Kind: Plain}
	if as == Tar {
		none = unknown("it is not a tarball")
	}
	compressed, err := gzip.NewReader(l.in)
	if err != nil {
		return none, nil
	}
	head := compressed.Header
	unpacked := &counting{r: compressed, left: unpackedLook}
	archive := tar.NewReader(unpacked)
	for first := true; ; first = false {
		header, err := archive.Next()
		switch {
		case errors.Is(l.in.err, errLimit) || errors.Is(err, errLimit):
			return unknown("its first part does not say whether it has more than one file or folder"), nil
		case errors.Is(err, io.EOF) && first && as == Auto:
			return none, nil
		case errors.Is(err, io.EOF):
			return l.shape.plan(Tar), nil
		case err != nil && first:
			return none, nil
		case err != nil:
			return unknown(err.Error()), nil
		}
		if err := untarEntry(header, nil, &l.shape); err != nil {
			return unknown(err.Error()), nil
		}
		if l.shape.tops > 1 {
			return l.shape.plan(Tar), nil
		}
		if !first {
			continue
		}
		if told, err := l.first(header, head, unpacked.n); told.Kind != Unknown || err != nil {
			return told, err
		}
	}
}

// first says what a tarball is of which there is only the first entry yet. Its content begins at an offset.
func (l *look) first(header *tar.Header, head gzip.Header, content int64) (Plan, error) {
	name := path.Clean(header.Name)
	if strings.Contains(name, "/") {
		return Plan{}, nil
	}
	switch header.Typeflag {
	case tar.TypeDir:
		if strings.HasSuffix(header.Name, "/") || head.OS != 255 || !head.ModTime.IsZero() || head.Name != "" || len(head.Extra) > 0 {
			return Plan{}, nil
		}
	case tar.TypeReg:
		const block = 512
		want := content + (header.Size+block-1)/block*block + 2*block
		var last [4]byte
		if l.size < int64(len(last)) {
			return Plan{}, nil
		}
		if _, err := readFull(l.in.ctx, l.from, last[:], l.size-int64(len(last))); err != nil {
			return Plan{}, err
		}
		if binary.LittleEndian.Uint32(last[:]) != uint32(want) {
			return Plan{}, nil
		}
	default:
		return Plan{}, nil
	}
	return l.shape.plan(Tar), nil
}

// counting counts what it reads, and fails after a number of bytes.
type counting struct {
	r       io.Reader
	n, left int64
}

func (c *counting) Read(p []byte) (int, error) {
	if c.left <= 0 {
		return 0, errLimit
	}
	n, err := c.r.Read(p[:min(int64(len(p)), c.left)])
	c.n, c.left = c.n+int64(n), c.left-int64(n)
	return n, err
}

func lookIntoZip(ctx context.Context, from Object, size int64) (Plan, error) {
	r := &readerAt{ctx: ctx, from: from, size: size}
	archive, err := openZip(r, size)
	if r.err != nil {
		return Plan{}, r.err
	}
	if err != nil {
		return unknown(err.Error()), nil
	}
	s := shape{kinds: map[string]made{}}
	for _, entry := range archive.File {
		const encrypted = 1
		if entry.Method > 0 && entry.Method != 8 || entry.Flags&encrypted != 0 || int64(entry.UncompressedSize64) < 0 {
			return unknown(entry.Name + " is packed in a way that is not supported"), nil
		}
		if err := unzipEntry(entry, &s); err != nil {
			return unknown(err.Error()), nil
		}
	}
	return s.plan(Zip), nil
}

// Package blob reads the blobs of images from any source. It verifies them, and decompresses them within
// limits. It is separate from package oci because the daemon imports oci and decompresses nothing.
package blob

import (
	"bufio"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/wasmshim/containerd-shim-wasm/oci"
)

var (
	// ErrMissing is returned if a source does not hold a blob that an image refers to.
	ErrMissing = errors.New("it is not there")
	// ErrDamaged is returned if a source holds other content under a blob's digest.
	ErrDamaged = errors.New("has another content than its digest says")
)

// Source holds the blobs of an image.
type Source interface {
	// Open returns the content of a blob, which the caller closes, and ErrMissing if the source does not hold
	// it. The content is not verified.
	Open(ctx context.Context, d ocispec.Descriptor) (io.ReadCloser, error)
}

// Read returns a blob of at most limit bytes. It verifies its size and its digest.
func Read(ctx context.Context, source Source, d ocispec.Descriptor, limit int64) ([]byte, error) {
	if err := d.Digest.Validate(); err != nil {
		return nil, fmt.Errorf("digest %q: %w", d.Digest, err)
	}
	if d.Size < 0 || d.Size > limit {
		return nil, fmt.Errorf("%s has %d bytes, the limit is %d", d.Digest, d.Size, limit)
	}
	reader, err := source.Open(ctx, d)
	if err != nil {
		return nil, err
	}
	defer reader.Close()
	data, err := io.ReadAll(io.LimitReader(reader, d.Size+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("read %s: %w", d.Digest, err)
	case int64(len(data)) > d.Size:
		return nil, fmt.Errorf("%s %w: it is larger than the %d bytes of its descriptor", d.Digest, ErrDamaged, d.Size)
	case int64(len(data)) != d.Size || d.Digest.Algorithm().FromBytes(data) != d.Digest:
		return nil, fmt.Errorf("%s %w", d.Digest, ErrDamaged)
	}
	return data, nil
}

// Manifest returns the manifest with the digest want: root itself, or one that the index root leads to.
func Manifest(ctx context.Context, source Source, root ocispec.Descriptor, want digest.Digest) (ocispec.Manifest, error) {
	data, err := Read(ctx, source, root, oci.MaxManifest)
	if err != nil {
		return ocispec.Manifest{}, err
	}
	if root.Digest == want {
		return oci.ParseManifest(data)
	}
	if !oci.IsIndex(root.MediaType) {
		return ocispec.Manifest{}, fmt.Errorf("manifest %s: %w", want, ErrMissing)
	}
	index, err := oci.ParseIndex(data)
	if err != nil {
		return ocispec.Manifest{}, err
	}
	for _, d := range index.Manifests {
		if d.Digest == want {
			return Manifest(ctx, source, d, want)
		}
	}
	return ocispec.Manifest{}, fmt.Errorf("manifest %s: %w", want, ErrMissing)
}

// maxWindow is how far back zstd data may refer, in bytes; zstd --long uses this window.
const maxWindow = 128 << 20

// Uncompressed returns the content of r, decompressed if it is in gzip or zstd.
func Uncompressed(r io.Reader) (io.ReadCloser, error) {
	buffered := bufio.NewReaderSize(r, 64<<10)
	head, err := buffered.Peek(4)
	if err != nil && err != io.EOF {
		return nil, err
	}
	switch oci.ContentOf(head) {
	case oci.Gzip:
		return gzip.NewReader(buffered)
	case oci.Zstd:
		decoder, err := zstd.NewReader(buffered, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(maxWindow))
		if err != nil {
			return nil, err
		}
		return decoder.IOReadCloser(), nil
	}
	return io.NopCloser(buffered), nil
}

// maxUnpacked is the limit for all layers of an image together, unpacked, in bytes.
const maxUnpacked = 16 << 30

// Unpacking counts how many more bytes may be unpacked from an image.
type Unpacking struct{ left int64 }

// NewUnpacking returns the count for an image of which nothing is unpacked yet.
func NewUnpacking() *Unpacking { return &Unpacking{maxUnpacked} }

// Open returns the decompressed content of a layer of files. A read fails when the image becomes too large.
func (u *Unpacking) Open(ctx context.Context, source Source, layer ocispec.Descriptor) (io.ReadCloser, error) {
	content, err := source.Open(ctx, layer)
	if err != nil {
		return nil, err
	}
	plain, err := Uncompressed(content)
	if err != nil {
		content.Close()
		return nil, err
	}
	return unpacked{plain, content, u}, nil
}

// unpacked is a layer being read.
type unpacked struct {
	plain, content io.ReadCloser
	of             *Unpacking
}

func (u unpacked) Read(p []byte) (int, error) {
	n, err := u.plain.Read(p)
	if u.of.left -= int64(n); u.of.left < 0 {
		return 0, fmt.Errorf("the image has more than %d bytes when it is unpacked", int64(maxUnpacked))
	}
	return n, err
}

func (u unpacked) Close() error { return errors.Join(u.plain.Close(), u.content.Close()) }

package inspect

import (
	"bufio"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/zstd"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/wasmshim/containerd-shim-wasm/oci"
)

// ErrMissing says that a source does not hold a blob that an image refers to.
var ErrMissing = errors.New("it is not there")

// Source holds the blobs of an image.
type Source interface {
	// Open returns the content of a blob, which the caller closes, and ErrMissing if it is not there.
	// The content is not verified.
	Open(ctx context.Context, d ocispec.Descriptor) (io.ReadCloser, error)
}

// read returns a blob of at most limit bytes after it has verified its size and digest.
func read(ctx context.Context, source Source, d ocispec.Descriptor, limit int64) ([]byte, error) {
	if err := d.Digest.Validate(); err != nil {
		return nil, fmt.Errorf("digest %q: %w", d.Digest, err)
	}
	if d.Size > limit {
		return nil, fmt.Errorf("%s has %d bytes, the limit is %d", d.Digest, d.Size, limit)
	}
	reader, err := source.Open(ctx, d)
	if err != nil {
		return nil, err
	}
	defer reader.Close()
	data, err := io.ReadAll(io.LimitReader(reader, limit+1))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", d.Digest, err)
	}
	if int64(len(data)) != d.Size || d.Digest.Algorithm().FromBytes(data) != d.Digest {
		return nil, fmt.Errorf("%s has another content than its digest says", d.Digest)
	}
	return data, nil
}

// Uncompressed returns what r holds, out of gzip or zstd if it is compressed so.
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
		decoder, err := zstd.NewReader(buffered, zstd.WithDecoderConcurrency(1))
		if err != nil {
			return nil, err
		}
		return decoder.IOReadCloser(), nil
	}
	return io.NopCloser(buffered), nil
}

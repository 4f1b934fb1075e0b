package worker

// wasmtime's library contains zstd, for a cache of its own that we do not use. A decoder in Go would build
// its tables at each start of a worker, including guests' workers.

/*
#cgo LDFLAGS: -Wl,--unresolved-symbols=ignore-all
#include <stddef.h>

// From the stable part of zstd.h
// (https://facebook.github.io/zstd/doc/api_manual_latest.html).
typedef struct { const void *src; size_t size, pos; } ZSTD_inBuffer;
typedef struct { void *dst; size_t size, pos; } ZSTD_outBuffer;
void *ZSTD_createDCtx(void);
size_t ZSTD_freeDCtx(void *);
size_t ZSTD_decompressStream(void *, ZSTD_outBuffer *, ZSTD_inBuffer *);
unsigned ZSTD_isError(size_t);
const char *ZSTD_getErrorName(size_t);

// decompress makes the two structs in C: Go must not pass C a pointer to memory that holds a Go pointer.
static size_t decompress(void *state, void *dst, size_t room, size_t *written, const void *src, size_t size, size_t *read) {
	ZSTD_outBuffer out = { dst, room, 0 };
	ZSTD_inBuffer in = { src, size, 0 };
	size_t left = ZSTD_decompressStream(state, &out, &in);
	*written = out.pos;
	*read = in.pos;
	return left;
}
*/
import "C"

import (
	"errors"
	"io"
	"unsafe"
)

// zstdReader decompresses consecutive zstd frames (https://www.rfc-editor.org/rfc/rfc8878).
type zstdReader struct {
	in     io.Reader
	state  unsafe.Pointer
	buffer []byte
	unread []byte // of buffer
	inside bool   // a frame has begun and not ended
	full   bool   // the decoder filled its output buffer: it may hold more
}

func newZstdReader(in io.Reader) (*zstdReader, error) {
	state := C.ZSTD_createDCtx()
	if state == nil {
		return nil, errors.New("no memory for the decoder")
	}
	return &zstdReader{in: in, state: state, buffer: make([]byte, 128<<10)}, nil
}

// Read implements io.Reader. It returns io.ErrUnexpectedEOF for a truncated frame.
func (z *zstdReader) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	for {
		if len(z.unread) == 0 && !z.full {
			if err := z.fill(); err != nil {
				return 0, err
			}
		}
		n, err := z.step(p)
		if n > 0 || err != nil {
			return n, err
		}
	}
}

func (z *zstdReader) fill() error {
	n, err := z.in.Read(z.buffer)
	z.unread = z.buffer[:n]
	switch {
	case n > 0:
		return nil
	case err == io.EOF && z.inside:
		return io.ErrUnexpectedEOF
	}
	return err
}

func (z *zstdReader) step(p []byte) (int, error) {
	var written, read C.size_t
	left := C.decompress(z.state, unsafe.Pointer(&p[0]), C.size_t(len(p)), &written,
		unsafe.Pointer(unsafe.SliceData(z.unread)), C.size_t(len(z.unread)), &read)
	if C.ZSTD_isError(left) != 0 {
		return 0, errors.New(C.GoString(C.ZSTD_getErrorName(left)))
	}
	z.unread = z.unread[read:]
	z.inside = left != 0
	z.full = int(written) == len(p)
	return int(written), nil
}

// Close frees the decoder.
func (z *zstdReader) Close() error {
	C.ZSTD_freeDCtx(z.state)
	return nil
}

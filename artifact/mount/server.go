package mount

import (
	"context"
	"errors"
	"log/slog"
	"os"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/wasmshim/containerd-shim-wasm/artifact/internal/connection"
)

// maxWrite is the most that one request reads or writes, in bytes.
const maxWrite = connection.MaxWrite

// Server serves one mount.
type Server struct {
	*connection.Connection
	files *files
}

// serve takes the descriptor over.
func serve(device *os.File, f *files, log *slog.Logger) (*Server, error) {
	var end context.CancelFunc
	f.ctx, end = context.WithCancel(context.Background())
	c, err := connection.Serve(device, f, connection.Options{
		Log: log, Read: f.answer, Ending: end, Ended: f.ended,
		Capabilities: fuse.CAP_ATOMIC_O_TRUNC, // a file that is truncated at once is not fetched
	})
	if err != nil {
		end()
		return nil, err
	}
	return &Server{c, f}, nil
}

// answer answers a read from the cache's memory, without a copy.
func (all *files) answer(ctx context.Context, in *fuse.ReadIn) ([][]byte, func(), fuse.Status) {
	parts, release, err := all.read(ctx, in)
	if err != nil {
		return nil, nil, all.status(in.NodeId, err)
	}
	return parts, release, fuse.OK
}

// errno returns the error number of an error.
func errno(err error) fuse.Status {
	var number unix.Errno
	switch {
	case err == nil:
		return fuse.OK
	case errors.Is(err, context.Canceled):
		return fuse.EINTR
	case errors.As(err, &number):
		return fuse.Status(number)
	}
	return fuse.EIO
}

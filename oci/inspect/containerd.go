package inspect

import (
	"context"
	"io"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/content/proxy"
	"github.com/containerd/errdefs"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"google.golang.org/grpc"
)

// containerd is its content store.
type containerd struct{ store content.Provider }

// Containerd returns what a containerd holds. The contexts of its calls name the namespace, as
// oci/store.In does.
func Containerd(conn *grpc.ClientConn) Source { return containerd{proxy.NewContentStore(conn)} }

func (c containerd) Open(ctx context.Context, d ocispec.Descriptor) (io.ReadCloser, error) {
	reader, err := c.store.ReaderAt(ctx, d)
	if errdefs.IsNotFound(err) {
		return nil, ErrMissing
	}
	if err != nil {
		return nil, err
	}
	return struct {
		io.Reader
		io.Closer
	}{io.NewSectionReader(reader, 0, reader.Size()), reader}, nil
}

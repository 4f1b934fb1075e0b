package store

import (
	"context"
	"errors"
	"fmt"

	images "github.com/containerd/containerd/api/services/images/v1"
	"github.com/containerd/containerd/api/types"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/wasmshim/containerd-shim-wasm/oci"
	"github.com/wasmshim/containerd-shim-wasm/oci/pack"
)

// Import writes an image into containerd and names it; an existing name moves, as with "ctr images import".
// It unpacks nothing: the client that runs the image does that.
func (s *Store) Import(ctx context.Context, ref string, image *pack.Image, progress pack.Progress) (err error) {
	leased, done, err := s.lease(ctx)
	if err != nil {
		return fmt.Errorf("import %s: %w", ref, err)
	}
	defer func() { err = errors.Join(err, done(false)) }()
	for n, b := range image.Blobs {
		if err := s.ingest(leased, b); err != nil {
			return fmt.Errorf("import %s: %w", ref, err)
		}
		if progress != nil {
			progress(n+1, len(image.Blobs), b)
		}
	}
	if err := s.name(leased, ref, image.Root); err != nil {
		return fmt.Errorf("import %s: %w", ref, explain(err))
	}
	return nil
}

// ingest writes a blob with labels that protect the content it refers to from the garbage collector.
func (s *Store) ingest(ctx context.Context, b pack.Blob) error {
	reader, err := b.Open()
	if err != nil {
		return err
	}
	defer reader.Close()
	return s.write(ctx, reader, b.Descriptor, references(b))
}

// references returns the labels that containerd itself sets on such a blob (core/images/handlers.go).
func references(b pack.Blob) map[string]string {
	const prefix = "containerd.io/gc.ref.content."
	labels := map[string]string{}
	for n, ref := range b.Refs {
		switch {
		case oci.IsIndex(b.MediaType):
			labels[fmt.Sprintf("%sm.%d", prefix, n)] = ref.Digest.String()
		case n == 0:
			labels[prefix+"config"] = ref.Digest.String()
		default:
			labels[fmt.Sprintf("%sl.%d", prefix, n-1)] = ref.Digest.String()
		}
	}
	return labels
}

func (s *Store) name(ctx context.Context, ref string, root ocispec.Descriptor) error {
	image := &images.Image{Name: ref, Target: &types.Descriptor{
		MediaType: root.MediaType, Digest: root.Digest.String(), Size: root.Size,
	}}
	_, err := s.images.Create(ctx, &images.CreateImageRequest{Image: image})
	if status.Code(err) == codes.AlreadyExists {
		_, err = s.images.Update(ctx, &images.UpdateImageRequest{Image: image})
	}
	return err
}

package pack

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"time"

	images "github.com/containerd/containerd/api/services/images/v1"
	leases "github.com/containerd/containerd/api/services/leases/v1"
	"github.com/containerd/containerd/api/types"
	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/content/proxy"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/wasmshim/containerd-shim-wasm/oci"
)

// leaseFor is how long containerd keeps what was written if we do not live to name it.
const leaseFor = time.Hour

// Import writes the image into containerd and names it; a name that is there moves, as with "ctr
// images import". ctx says in which namespace, as oci/store.In does. It unpacks nothing: whoever
// runs the image does.
func (i *Image) Import(ctx context.Context, conn *grpc.ClientConn, ref string, progress Progress) (err error) {
	lease, release, err := hold(ctx, conn)
	if err != nil {
		return fmt.Errorf("import %s: %w", ref, err)
	}
	defer func() { err = errors.Join(err, release()) }()
	store := proxy.NewContentStore(conn)
	for n, b := range i.Blobs {
		if err := ingest(lease, store, b); err != nil {
			return fmt.Errorf("import %s: write %s: %w", ref, b.Digest, explain(err))
		}
		if progress != nil {
			progress(n+1, len(i.Blobs), b)
		}
	}
	if err := nameImage(lease, images.NewImagesClient(conn), ref, i.Root); err != nil {
		return fmt.Errorf("import %s: %w", ref, explain(err))
	}
	return nil
}

// hold returns a context with a lease: what is written in it is not collected as garbage until it is
// released or, if we are killed, has expired (containerd, docs/garbage-collection.md).
func hold(ctx context.Context, conn *grpc.ClientConn) (context.Context, func() error, error) {
	client := leases.NewLeasesClient(conn)
	id := "wasm-images-" + rand.Text()
	_, err := client.Create(ctx, &leases.CreateRequest{ID: id, Labels: map[string]string{
		"containerd.io/gc.expire": time.Now().Add(leaseFor).UTC().Format(time.RFC3339),
	}})
	if err != nil {
		return nil, nil, explain(err)
	}
	release := func() error {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
		defer cancel()
		if _, err := client.Delete(ctx, &leases.DeleteRequest{ID: id}); err != nil {
			return fmt.Errorf("release the lease %s, which expires by itself in %s: %w", id, leaseFor, explain(err))
		}
		return nil
	}
	return metadata.AppendToOutgoingContext(ctx, "containerd-lease", id), release, nil
}

// ingest writes a blob with labels that keep what it refers to from the garbage collector.
func ingest(ctx context.Context, store content.Store, b Blob) error {
	labels := references(b)
	reader, err := b.Open()
	if err != nil {
		return err
	}
	defer reader.Close()
	err = content.WriteBlob(ctx, store, "wasm-images-"+b.Digest.Encoded(), reader, b.Descriptor, content.WithLabels(labels))
	if err != nil {
		return err
	}
	return relabel(ctx, store, b.Digest, labels)
}

// relabel is for blobs that were there already.
func relabel(ctx context.Context, store content.Store, d digest.Digest, labels map[string]string) error {
	if len(labels) == 0 {
		return nil
	}
	var paths []string
	for key := range labels {
		paths = append(paths, "labels."+key)
	}
	_, err := store.Update(ctx, content.Info{Digest: d, Labels: labels}, paths...)
	return err
}

// references returns the labels as containerd itself sets them (core/images/handlers.go).
func references(b Blob) map[string]string {
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

func nameImage(ctx context.Context, client images.ImagesClient, ref string, root ocispec.Descriptor) error {
	image := &images.Image{Name: ref, Target: &types.Descriptor{
		MediaType: root.MediaType, Digest: root.Digest.String(), Size: root.Size,
	}}
	_, err := client.Create(ctx, &images.CreateImageRequest{Image: image})
	if status.Code(err) == codes.AlreadyExists {
		_, err = client.Update(ctx, &images.UpdateImageRequest{Image: image})
	}
	return err
}

// explain drops the words of gRPC from an error.
func explain(err error) error {
	s, ok := status.FromError(err)
	switch {
	case !ok:
		return err
	case s.Code() == codes.Unavailable:
		return fmt.Errorf("containerd does not answer: %s", s.Message())
	}
	return errors.New(s.Message())
}

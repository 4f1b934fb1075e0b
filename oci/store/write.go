package store

import (
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"maps"
	"slices"
	"time"

	content "github.com/containerd/containerd/api/services/content/v1"
	leases "github.com/containerd/containerd/api/services/leases/v1"
	core "github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/content/proxy"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/types/known/fieldmaskpb"
)

const (
	// leaseHeader carries the lease of a request (containerd, core/leases).
	leaseHeader = "containerd-lease"
	// expiry is the age at which containerd may drop a lease that we did not delete because we died. It is
	// longer than it takes to write a large image, or to compile a module from a view.
	expiry = time.Hour
	// endLimit is how long containerd may take to delete a lease and to collect its garbage.
	endLimit = 30 * time.Second
)

// leaseOf returns the lease in a context that lease returned.
func leaseOf(ctx context.Context) string {
	headers, _ := metadata.FromOutgoingContext(ctx)
	if ids := headers.Get(leaseHeader); len(ids) > 0 {
		return ids[0]
	}
	return ""
}

// lease protects everything written with its context from the garbage collector until done is called. done
// can also run the collector.
func (s *Store) lease(ctx context.Context) (_ context.Context, done func(collect bool) error, err error) {
	service := leases.NewLeasesClient(s.conn)
	id := "wasm-shim-" + rand.Text()
	labels := map[string]string{"containerd.io/gc.expire": time.Now().Add(expiry).UTC().Format(time.RFC3339)}
	if _, err := service.Create(ctx, &leases.CreateRequest{ID: id, Labels: labels}); err != nil {
		return nil, nil, fmt.Errorf("lease: %w", explain(err))
	}
	leased := metadata.AppendToOutgoingContext(ctx, leaseHeader, id)
	return leased, func(collect bool) error {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), endLimit)
		defer cancel()
		if _, err := service.Delete(ctx, &leases.DeleteRequest{ID: id, Sync: collect}); err != nil {
			return fmt.Errorf("end lease %s, which expires by itself in %s: %w", id, expiry, explain(err))
		}
		return nil
	}, nil
}

// write writes a blob and its labels. A blob that exists already only gets the labels.
func (s *Store) write(ctx context.Context, from io.Reader, d ocispec.Descriptor, labels map[string]string) error {
	err := core.WriteBlob(ctx, proxy.NewContentStore(s.conn), "wasm-shim-"+d.Digest.Encoded(), from, d, core.WithLabels(labels))
	if err != nil && !errdefs.IsAlreadyExists(err) {
		return fmt.Errorf("write blob %s: %w", d.Digest, explain(err))
	}
	if len(labels) == 0 {
		return nil
	}
	return s.label(ctx, d.Digest, labels)
}

// label sets labels of content in the store; an empty value removes one.
func (s *Store) label(ctx context.Context, of digest.Digest, labels map[string]string) error {
	var paths []string
	for _, name := range slices.Sorted(maps.Keys(labels)) {
		paths = append(paths, "labels."+name)
	}
	_, err := s.content.Update(ctx, &content.UpdateRequest{
		Info:       &content.Info{Digest: of.String(), Labels: labels},
		UpdateMask: &fieldmaskpb.FieldMask{Paths: paths},
	})
	if err != nil && !notFound(err) {
		return fmt.Errorf("label %s: %w", of, explain(err))
	}
	return err
}

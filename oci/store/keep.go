package store

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
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
	// keepLabel starts the label by which what of an image's content has it refers to
	// a blob of ours: containerd's garbage collector follows such labels and ignores
	// the rest of the name (containerd, docs/garbage-collection.md, in core/metadata:
	// gc.go).
	keepLabel = "containerd.io/gc.ref.content.wasm-shim."
	// compiledType is what ctr shows of a blob of ours.
	compiledType = "application/vnd.wasmtime.module.v1+cwasm"
	// leaseHeader carries the lease of a request (containerd, core/leases).
	leaseHeader = "containerd-lease"
	// mostKept bounds the labels that an image gets: whoever runs ever new modules from a
	// volume would have its manifest grow without end.
	mostKept = 64
	// expiry is when containerd may drop a lease that nobody deletes, because we died.
	expiry = 10 * time.Minute
)

// Target is an image as containerd names it: what refers to the rest of it is the content
// with the digest, a manifest or an index.
type Target struct {
	Image  string
	Digest digest.Digest
}

// TargetOf returns the image that a container was made from; Image is empty if it was
// made from none, or from one that is gone.
func (s *Store) TargetOf(ctx context.Context, namespace, container string) (Target, error) {
	ctx = In(ctx, namespace)
	c, err := s.container(ctx, container)
	if err != nil || c.Image == "" {
		return Target{}, err
	}
	t, err := s.target(ctx, c.Image)
	if err != nil {
		return Target{}, fmt.Errorf("container %s: %w", container, err)
	}
	return Target{Image: c.Image, Digest: t.Digest}, nil
}

// TargetOfImage returns an image by its name.
func (s *Store) TargetOfImage(ctx context.Context, namespace, image string) (Target, error) {
	t, err := s.target(In(ctx, namespace), image)
	return Target{Image: image, Digest: t.Digest}, err
}

// Keep stores code, whose digest is sum, as a blob that lives as long as the image, and
// returns the path of its file. name tells the image's blobs of this kind apart. An image that
// has as many as it may keeps no other: the path is empty then.
func (s *Store) Keep(ctx context.Context, namespace string, to Target, name string, code *os.File, sum digest.Digest) (string, error) {
	ctx = In(ctx, namespace)
	root, err := s.root(ctx)
	if err != nil {
		return "", err
	}
	if full, err := s.isFull(ctx, to.Digest, keepLabel+name); full || err != nil {
		return "", err
	}
	ctx, done, err := s.lease(ctx)
	if err != nil {
		return "", err
	}
	err = s.write(ctx, code, sum)
	if err == nil {
		err = s.label(ctx, to.Digest, keepLabel+name, sum.String())
	}
	if err = errors.Join(err, done(false)); err != nil {
		return "", fmt.Errorf("keep compiled code with image %s: %w", to.Image, err)
	}
	return blobPath(root, sum), nil
}

// Release undoes Keep, and has containerd collect its garbage.
func (s *Store) Release(ctx context.Context, namespace string, target digest.Digest, name string) error {
	ctx, done, err := s.lease(In(ctx, namespace))
	if err != nil {
		return err
	}
	err = s.label(ctx, target, keepLabel+name, "")
	if notFound(err) {
		err = nil // the image is gone, and with it what it referred to
	}
	return errors.Join(err, done(true))
}

// leaseOf returns the lease of a context that lease has made.
func leaseOf(ctx context.Context) string {
	headers, _ := metadata.FromOutgoingContext(ctx)
	if ids := headers.Get(leaseHeader); len(ids) > 0 {
		return ids[0]
	}
	return ""
}

// lease keeps what is written from the garbage collector until done is called, which
// can have it run.
func (s *Store) lease(ctx context.Context) (_ context.Context, done func(collect bool) error, err error) {
	service := leases.NewLeasesClient(s.conn)
	id := fmt.Sprintf("wasm-shim-%d-%d", os.Getpid(), time.Now().UnixNano())
	labels := map[string]string{"containerd.io/gc.expire": time.Now().Add(expiry).UTC().Format(time.RFC3339)}
	if _, err := service.Create(ctx, &leases.CreateRequest{ID: id, Labels: labels}); err != nil {
		return nil, nil, fmt.Errorf("lease: %w", explain(err))
	}
	leased := metadata.AppendToOutgoingContext(ctx, leaseHeader, id)
	return leased, func(collect bool) error {
		if _, err := service.Delete(ctx, &leases.DeleteRequest{ID: id, Sync: collect}); err != nil {
			return fmt.Errorf("end lease: %w", explain(err))
		}
		return nil
	}, nil
}

func (s *Store) write(ctx context.Context, code *os.File, sum digest.Digest) error {
	info, err := code.Stat()
	if err != nil {
		return err
	}
	if _, err := code.Seek(0, 0); err != nil {
		return err
	}
	blob := ocispec.Descriptor{MediaType: compiledType, Digest: sum, Size: info.Size()}
	err = core.WriteBlob(ctx, proxy.NewContentStore(s.conn), "wasm-shim-"+sum.Encoded(), code, blob)
	if err != nil && !errdefs.IsAlreadyExists(err) {
		return fmt.Errorf("write blob %s: %w", sum, explain(err))
	}
	return nil
}

// isFull reports whether content has as many labels for blobs of ours as it may, and not
// the one of that name.
func (s *Store) isFull(ctx context.Context, of digest.Digest, name string) (bool, error) {
	response, err := s.content.Info(ctx, &content.InfoRequest{Digest: of.String()})
	if err != nil {
		return false, fmt.Errorf("read labels of %s: %w", of, explain(err))
	}
	kept := 0
	for label := range response.GetInfo().GetLabels() {
		if label == name {
			return false, nil
		}
		if strings.HasPrefix(label, keepLabel) {
			kept++
		}
	}
	return kept >= mostKept, nil
}

// label sets a label of content in the store; an empty value removes it.
func (s *Store) label(ctx context.Context, of digest.Digest, name, value string) error {
	_, err := s.content.Update(ctx, &content.UpdateRequest{
		Info:       &content.Info{Digest: of.String(), Labels: map[string]string{name: value}},
		UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"labels." + name}},
	})
	if err != nil && !notFound(err) {
		return fmt.Errorf("label %s: %w", of, explain(err))
	}
	return err
}

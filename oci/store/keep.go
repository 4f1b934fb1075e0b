package store

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	content "github.com/containerd/containerd/api/services/content/v1"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

const (
	// keepLabel is the prefix of the label by which an image's content refers to a blob of ours: containerd's
	// garbage collector follows such labels and ignores the rest of the name (containerd,
	// docs/garbage-collection.md, in core/metadata: gc.go).
	keepLabel = "containerd.io/gc.ref.content.wasm-shim."
	// compiledType is the media type that ctr shows for a blob of ours.
	compiledType = "application/vnd.wasmtime.module.v1+cwasm"
	// mostKept is the limit of labels for one image. Without it, a container that runs new modules from a
	// volume again and again would make the labels of its manifest grow without end.
	mostKept = 64
)

// Target is an image as containerd names it, and the digest of its root, the manifest or index that refers to
// the rest of it.
type Target struct {
	Image  string
	Digest digest.Digest
}

// TargetOf returns the image that a container was made from; Image is empty if it was made without one.
func (s *Store) TargetOf(ctx context.Context, container string) (Target, error) {
	c, err := s.container(ctx, container)
	if err != nil || c.Image == "" {
		return Target{}, err
	}
	t, err := s.Target(ctx, c.Image)
	if err != nil {
		return Target{}, fmt.Errorf("container %s: %w", container, err)
	}
	return Target{Image: c.Image, Digest: t.Digest}, nil
}

// TargetOfImage returns an image by its name.
func (s *Store) TargetOfImage(ctx context.Context, image string) (Target, error) {
	t, err := s.Target(ctx, image)
	return Target{Image: image, Digest: t.Digest}, err
}

// Keep stores code, whose digest is sum, as a blob that lives as long as the image, and returns the path of
// its file. name distinguishes the image's blobs of this kind. If the image already has as many as it may
// have, Keep stores nothing and the path is empty.
func (s *Store) Keep(ctx context.Context, to Target, name string, code *os.File, sum digest.Digest) (string, error) {
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
	err = s.writeCode(ctx, code, sum)
	if err == nil {
		err = s.label(ctx, to.Digest, map[string]string{keepLabel + name: sum.String()})
	}
	if err = errors.Join(err, done(false)); err != nil {
		return "", fmt.Errorf("keep compiled code with image %s: %w", to.Image, err)
	}
	return blobPath(root, sum), nil
}

// Release undoes Keep, and makes containerd collect its garbage.
func (s *Store) Release(ctx context.Context, target digest.Digest, name string) error {
	ctx, done, err := s.lease(ctx)
	if err != nil {
		return err
	}
	err = s.label(ctx, target, map[string]string{keepLabel + name: ""})
	if notFound(err) {
		err = nil // the image is gone, and the blob with it
	}
	return errors.Join(err, done(true))
}

func (s *Store) writeCode(ctx context.Context, code *os.File, sum digest.Digest) error {
	info, err := code.Stat()
	if err != nil {
		return err
	}
	if _, err := code.Seek(0, 0); err != nil {
		return err
	}
	return s.write(ctx, code, ocispec.Descriptor{MediaType: compiledType, Digest: sum, Size: info.Size()}, nil)
}

// isFull reports whether content has as many labels for blobs of ours as it may have, none of them with that
// name.
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

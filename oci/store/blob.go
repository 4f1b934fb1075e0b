package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"sync"

	content "github.com/containerd/containerd/api/services/content/v1"
	introspection "github.com/containerd/containerd/api/services/introspection/v1"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/wasmshim/containerd-shim-wasm/oci/blob"
)

// errMissing is returned for a blob that is not in containerd's content store.
var errMissing = errors.New("it is not on this node: pull the image again")

// contentPlugin is containerd's content store on a local disk. It exports its folder under the name root
// (containerd 1.7: services/server/server.go, 2.x: plugins/content/local/plugin).
const contentPlugin = "type==io.containerd.content.v1,id==content"

// blobs returns a function that returns the folder of containerd's content store. It asks containerd once.
func (s *Store) blobs(ctx context.Context) func() (string, error) {
	return sync.OnceValues(func() (string, error) { return s.root(ctx) })
}

func (s *Store) root(ctx context.Context) (string, error) {
	response, err := s.introspection.Plugins(ctx, &introspection.PluginsRequest{Filters: []string{contentPlugin}})
	if err != nil {
		return "", fmt.Errorf("ask containerd for its content store: %w", explain(err))
	}
	for _, p := range response.Plugins {
		if root := p.Exports["root"]; filepath.IsAbs(root) && p.InitErr == nil {
			return root, nil
		}
	}
	return "", errors.New("containerd's content store is not a folder on this node, which Wasm layers need: " +
		"enable its plugin io.containerd.content.v1.content, or put the module into a tar layer")
}

// blobPath returns the path of a blob's file (containerd, content/local: blobs/ALGORITHM/HEX).
func blobPath(root string, d digest.Digest) string {
	return filepath.Join(root, "blobs", d.Algorithm().String(), d.Encoded())
}

// size returns a blob's size in bytes according to the store.
func (s *Store) size(ctx context.Context, d digest.Digest) (int64, error) {
	response, err := s.content.Info(ctx, &content.InfoRequest{Digest: d.String()})
	if err != nil {
		return 0, err
	}
	return response.Info.Size, nil
}

// Open returns the content of a blob as containerd sends it, and blob.ErrMissing if containerd does not have
// it.
func (s *Store) Open(ctx context.Context, d ocispec.Descriptor) (io.ReadCloser, error) {
	ctx, cancel := context.WithCancel(ctx) // ends a stream that is not read to its end
	stream, err := s.content.Read(ctx, &content.ReadContentRequest{Digest: d.Digest.String()})
	r := &reader{stream: stream, cancel: cancel}
	if err == nil {
		err = r.next()
	}
	switch {
	case notFound(err):
		err = blob.ErrMissing
	case err == nil || errors.Is(err, io.EOF):
		return r, nil
	default:
		err = fmt.Errorf("read %s: %w", d.Digest, explain(err))
	}
	cancel()
	return nil, err
}

// reader reads the content of a blob.
type reader struct {
	stream content.Content_ReadClient
	cancel func()
	part   []byte
	err    error
}

// next receives the next part.
func (r *reader) next() error {
	part, err := r.stream.Recv()
	r.part, r.err = part.GetData(), err
	return err
}

func (r *reader) Read(p []byte) (int, error) {
	for len(r.part) == 0 && r.err == nil {
		_ = r.next() // the error is kept in r.err
	}
	n := copy(p, r.part)
	r.part = r.part[n:]
	switch {
	case n > 0 || r.err == nil:
		return n, nil
	case errors.Is(r.err, io.EOF):
		return 0, io.EOF
	}
	return 0, explain(r.err)
}

func (r *reader) Close() error {
	r.cancel()
	return nil
}

// read returns a blob of at most limit bytes, its digest verified. The error is errMissing if the store does
// not have it.
func (s *Store) read(ctx context.Context, d ocispec.Descriptor, limit int64) ([]byte, error) {
	data, err := blob.Read(ctx, s, d, limit)
	switch {
	case errors.Is(err, blob.ErrMissing):
		return nil, fmt.Errorf("%s: %w", d.Digest, errMissing)
	case errors.Is(err, blob.ErrDamaged):
		return nil, fmt.Errorf("%w: remove the image and pull it again", err)
	}
	return data, err
}

func descriptor(mediaType, dgst string, size int64) ocispec.Descriptor {
	return ocispec.Descriptor{MediaType: mediaType, Digest: digest.Digest(dgst), Size: size}
}

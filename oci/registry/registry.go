// Package registry writes images to registries, and reads images from them. It never runs or unpacks
// anything.
package registry

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/wasmshim/containerd-shim-wasm/oci"
	"github.com/wasmshim/containerd-shim-wasm/oci/blob"
)

// repository is a repository of a registry.
type repository struct {
	named   name.Repository
	options []remote.Option
}

// Find returns an image in a registry, and the descriptor of its manifest or index.
func Find(ref name.Reference, options ...remote.Option) (blob.Source, ocispec.Descriptor, error) {
	root, err := remote.Get(ref, options...)
	if err != nil {
		return nil, ocispec.Descriptor{}, err
	}
	return repository{ref.Context(), options}, descriptor(root.Descriptor), nil
}

func descriptor(d v1.Descriptor) ocispec.Descriptor {
	return ocispec.Descriptor{MediaType: string(d.MediaType), Digest: digest.Digest(d.Digest.String()), Size: d.Size}
}

func (r repository) Open(ctx context.Context, d ocispec.Descriptor) (io.ReadCloser, error) {
	at := r.named.Digest(d.Digest.String())
	options := append(r.options[:len(r.options):len(r.options)], remote.WithContext(ctx))
	if oci.IsManifest(d.MediaType) || oci.IsIndex(d.MediaType) {
		manifest, err := remote.Get(at, options...)
		if err != nil {
			return nil, missing(err)
		}
		return io.NopCloser(bytes.NewReader(manifest.Manifest)), nil
	}
	layer, err := remote.Layer(at, options...)
	if err != nil {
		return nil, missing(err)
	}
	reader, err := layer.Compressed()
	return reader, missing(err)
}

// missing turns an answer of 404 into blob.ErrMissing.
func missing(err error) error {
	var answer *transport.Error
	if errors.As(err, &answer) && answer.StatusCode == http.StatusNotFound {
		return fmt.Errorf("%w: %w", blob.ErrMissing, err)
	}
	return err
}

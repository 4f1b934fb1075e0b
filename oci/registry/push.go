package registry

import (
	"context"
	"fmt"
	"io"
	"net/http"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/opencontainers/go-digest"

	"github.com/wasmshim/containerd-shim-wasm/oci"
	"github.com/wasmshim/containerd-shim-wasm/oci/pack"
)

// Options are the options of a connection to a registry. The zero value uses TLS, except with registries on
// this machine or in private networks, and the credentials of "docker login".
type Options struct {
	PlainHTTP bool
	Transport http.RoundTripper // that of go-containerregistry if nil
}

// Reference parses a name for a registry.
func (o Options) Reference(ref string) (name.Reference, error) {
	if o.PlainHTTP {
		return name.ParseReference(ref, name.Insecure)
	}
	return name.ParseReference(ref)
}

// Remote returns the options for go-containerregistry.
func (o Options) Remote(ctx context.Context) []remote.Option {
	options := []remote.Option{remote.WithContext(ctx), remote.WithAuthFromKeychain(authn.DefaultKeychain)}
	if o.Transport != nil {
		options = append(options, remote.WithTransport(o.Transport))
	}
	return options
}

// Push writes the image to the registry in ref, a name that [pack.Name] returned. It does not send blobs that
// the registry already has. The name moves to this image after all blobs are written.
func Push(ctx context.Context, ref string, i *pack.Image, o Options, progress pack.Progress) error {
	target, err := o.Reference(ref)
	if err != nil {
		return err
	}
	options := o.Remote(ctx)
	for n, b := range i.Blobs {
		if err := push(target, b, b.Digest == i.Root.Digest, options); err != nil {
			return fmt.Errorf("push %s to %s: %w", ref, target.Context().RegistryStr(), err)
		}
		if progress != nil {
			progress(n+1, len(i.Blobs), b)
		}
	}
	return nil
}

func push(target name.Reference, b pack.Blob, isRoot bool, options []remote.Option) error {
	if !oci.IsManifest(b.MediaType) && !oci.IsIndex(b.MediaType) {
		return remote.WriteLayer(target.Context(), layer{b}, options...)
	}
	content, err := b.Open()
	if err != nil {
		return err
	}
	defer content.Close()
	raw, err := io.ReadAll(content)
	if err != nil {
		return err
	}
	if !isRoot {
		target = target.Context().Digest(b.Digest.String())
	}
	return remote.Put(target, manifest{raw, types.MediaType(b.MediaType)}, options...)
}

// manifest is a manifest as go-containerregistry's Put takes it.
type manifest struct {
	raw       []byte
	mediaType types.MediaType
}

func (m manifest) RawManifest() ([]byte, error) { return m.raw, nil }

func (m manifest) MediaType() (types.MediaType, error) { return m.mediaType, nil }

// layer is any blob, unchanged, as go-containerregistry uploads it.
type layer struct{ pack.Blob }

func (l layer) Digest() (v1.Hash, error) { return hash(l.Blob.Digest) }

func (l layer) DiffID() (v1.Hash, error) { return hash(l.Blob.Digest) }

func (l layer) Compressed() (io.ReadCloser, error) { return l.Open() }

func (l layer) Uncompressed() (io.ReadCloser, error) { return l.Open() }

func (l layer) Size() (int64, error) { return l.Blob.Size, nil }

func (l layer) MediaType() (types.MediaType, error) { return types.MediaType(l.Blob.MediaType), nil }

func hash(d digest.Digest) (v1.Hash, error) { return v1.NewHash(d.String()) }

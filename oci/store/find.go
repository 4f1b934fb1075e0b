package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"

	containers "github.com/containerd/containerd/api/services/containers/v1"
	images "github.com/containerd/containerd/api/services/images/v1"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/wasmshim/containerd-shim-wasm/oci"
)

// Find returns the Wasm layers of the image that a container was made from, each with its file. It returns
// none, and no error, if the container was made without an image, or from one without Wasm layers.
//
// Find checks that a layer's file exists and has the size in the manifest. It does not read the content: the
// code that compiles it has to compare its digest.
//
// note stores the answer in containerd; it is nil if there is nothing to store. From then on the container
// keeps the same manifest even if the image's name moves, and the garbage collector keeps the layers for it.
func (s *Store) Find(ctx context.Context, id string) (found oci.Found, note func(context.Context) error, err error) {
	// A container waits for the answer, so independent requests run at the same time.
	blobs := s.blobs(ctx)
	go blobs()
	c, err := s.container(ctx, id)
	if err != nil || c.Image == "" {
		return oci.Found{}, nil, err
	}
	from, known, err := s.remembered(ctx, c)
	if err == nil && !known {
		from, err = s.origin(ctx, c)
	}
	if err != nil {
		return oci.Found{}, nil, fmt.Errorf("container %s: %w", id, err)
	}
	if found, err = s.located(ctx, from, blobs); err != nil {
		return oci.Found{}, nil, fmt.Errorf("image %s: %w", from.image, err)
	}
	if known || len(found.Modules) == 0 {
		return found, nil, nil
	}
	return found, func(ctx context.Context) error { return s.remember(ctx, id, from) }, nil
}

// FindImage is Find for an image by its name in containerd. For an index it takes the best manifest for Wasm
// among those that were pulled.
func (s *Store) FindImage(ctx context.Context, image string) (oci.Found, error) {
	target, err := s.Target(ctx, image)
	if err != nil {
		return oci.Found{}, err
	}
	chosen, err := s.choose(ctx, target, made{})
	var found oci.Found
	if err == nil {
		found, err = s.located(ctx, origin{image, target.Digest, chosen}, s.blobs(ctx))
	}
	if err != nil {
		return oci.Found{}, fmt.Errorf("image %s: %w", image, err)
	}
	return found, nil
}

func (s *Store) container(ctx context.Context, id string) (*containers.Container, error) {
	response, err := s.containers.Get(ctx, &containers.GetContainerRequest{ID: id})
	if err != nil {
		return nil, fmt.Errorf("look up container %s: %w", id, explain(err))
	}
	return response.Container, nil
}

// ErrNoImage is returned for a name that no image has.
var ErrNoImage = errors.New("is not in containerd")

// Target returns the manifest or the index that an image's name refers to.
func (s *Store) Target(ctx context.Context, image string) (ocispec.Descriptor, error) {
	response, err := s.images.Get(ctx, &images.GetImageRequest{Name: image})
	if notFound(err) {
		return ocispec.Descriptor{}, fmt.Errorf("image %s %w: pull it again", image, ErrNoImage)
	}
	if err != nil {
		return ocispec.Descriptor{}, fmt.Errorf("look up image %s: %w", image, explain(err))
	}
	t := response.Image.Target
	return descriptor(t.MediaType, t.Digest, t.Size), nil
}

// located returns the Wasm layers of a manifest, each with its file.
func (s *Store) located(ctx context.Context, from origin, blobs func() (string, error)) (oci.Found, error) {
	c := from.candidate
	found := oci.Found{
		Image: from.image, Target: from.target.String(), Manifest: c.digest.String(), Platform: c.platform,
		Entry: c.config.Entry(), Modules: oci.Modules(c.manifest),
	}
	if len(found.Modules) == 0 {
		return found, nil
	}
	root, err := blobs()
	if err != nil {
		return oci.Found{}, err
	}
	for i := range found.Modules {
		if err := s.locate(ctx, root, &found.Modules[i]); err != nil {
			return oci.Found{}, err
		}
	}
	return found, nil
}

// locate finds the file of a layer.
func (s *Store) locate(ctx context.Context, root string, m *oci.Module) error {
	size, err := s.size(ctx, m.Digest)
	if notFound(err) {
		return fmt.Errorf("its layer %s (%s) is not on this node: pull the image again", m, m.Digest)
	}
	if err != nil {
		return fmt.Errorf("look up layer %s: %w", m.Digest, explain(err))
	}
	path := blobPath(root, m.Digest)
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("its layer %s (%s) is gone from containerd's content store (%s): remove the image and pull it again", m, m.Digest, path)
	}
	if err != nil {
		return fmt.Errorf("look up layer %s: %w", m.Digest, err)
	}
	if !info.Mode().IsRegular() || info.Size() != m.Size || size != m.Size {
		return fmt.Errorf("its layer %s (%s) has %d bytes in containerd's content store, the manifest says %d: remove the image and pull it again", m, m.Digest, info.Size(), m.Size)
	}
	m.Path = path
	return nil
}

// manifest reads and parses a manifest and its configuration. The error is errOther if a container was made
// from another one.
func (s *Store) manifest(ctx context.Context, d ocispec.Descriptor, made made) (candidate, error) {
	data, err := s.read(ctx, d, oci.MaxManifest)
	if err != nil {
		return candidate{}, err
	}
	manifest, err := oci.ParseManifest(data)
	if err != nil {
		return candidate{}, fmt.Errorf("%s: %w", d.Digest, err)
	}
	if made.config != "" && manifest.Config.Digest != made.config {
		return candidate{}, errOther
	}
	c := candidate{digest: d.Digest, size: d.Size, manifest: manifest}
	if oci.IsImageConfig(manifest.Config.MediaType) || oci.IsWasmConfig(manifest.Config.MediaType) {
		if data, err = s.read(ctx, manifest.Config, oci.MaxConfig); err != nil {
			return candidate{}, fmt.Errorf("configuration: %w", err)
		}
		if c.config, err = oci.ParseConfig(manifest.Config.MediaType, data); err != nil {
			return candidate{}, fmt.Errorf("%s: %w", d.Digest, err)
		}
	}
	if !made.on(c.config.ChainID()) || made.layers != "" && made.layers != c.config.Layers() {
		return candidate{}, errOther
	}
	c.platform = oci.FormatPlatform(c.config.Platform)
	if d.Platform != nil {
		c.platform = oci.FormatPlatform(*d.Platform)
	}
	return c, nil
}

// index reads and parses an index.
func (s *Store) index(ctx context.Context, d ocispec.Descriptor) (ocispec.Index, error) {
	data, err := s.read(ctx, d, oci.MaxManifest)
	if err != nil {
		return ocispec.Index{}, err
	}
	index, err := oci.ParseIndex(data)
	if err != nil {
		return ocispec.Index{}, fmt.Errorf("%s: %w", d.Digest, err)
	}
	return index, nil
}

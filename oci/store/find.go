package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"

	containers "github.com/containerd/containerd/api/services/containers/v1"
	images "github.com/containerd/containerd/api/services/images/v1"
	snapshots "github.com/containerd/containerd/api/services/snapshots/v1"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sync/errgroup"

	"github.com/wasmshim/containerd-shim-wasm/oci"
)

// Find returns the Wasm layers of the image that a container was made from, each with
// its file. There are none, and no error, if the container was made from no image, or
// from one without Wasm layers.
//
// A layer's file is there and has the size that the manifest gives it. Its content is
// not read here: whoever compiles it has to compare its digest.
func (s *Store) Find(ctx context.Context, namespace, id string) (oci.Found, error) {
	ctx = In(ctx, namespace)
	// A container waits for the answer, so what can be asked at once is.
	blobs := s.blobs(ctx)
	go blobs()
	c, err := s.container(ctx, id)
	if err != nil || c.Image == "" {
		return oci.Found{}, err
	}
	var target ocispec.Descriptor
	var made parents
	group, ask := errgroup.WithContext(ctx)
	group.Go(func() (err error) { target, err = s.target(ask, c.Image); return err })
	group.Go(func() (err error) { made, err = s.parents(ask, c); return err })
	if err := group.Wait(); err != nil {
		return oci.Found{}, fmt.Errorf("container %s: %w", id, err)
	}
	found, err := s.find(ctx, c.Image, target, made, blobs)
	if err != nil {
		return oci.Found{}, fmt.Errorf("image %s: %w", c.Image, err)
	}
	return found, nil
}

// FindImage is Find for an image by its name in containerd. Of an index it takes the
// manifest that fits Wasm best among those that were pulled.
func (s *Store) FindImage(ctx context.Context, namespace, image string) (oci.Found, error) {
	ctx = In(ctx, namespace)
	target, err := s.target(ctx, image)
	if err != nil {
		return oci.Found{}, err
	}
	found, err := s.find(ctx, image, target, nil, s.blobs(ctx))
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

func (s *Store) target(ctx context.Context, image string) (ocispec.Descriptor, error) {
	response, err := s.images.Get(ctx, &images.GetImageRequest{Name: image})
	if notFound(err) {
		return ocispec.Descriptor{}, fmt.Errorf("image %s is not in containerd: pull it again", image)
	}
	if err != nil {
		return ocispec.Descriptor{}, fmt.Errorf("look up image %s: %w", image, explain(err))
	}
	t := response.Image.Target
	return descriptor(t.MediaType, t.Digest, t.Size), nil
}

// parents returns the name of the snapshot below the container's own, which is the chain
// id of its image. For a container in a user namespace, containerd may have put one
// between them whose files have other owners (containerd, client/container_opts_unix.go),
// so the next is returned, too.
func (s *Store) parents(ctx context.Context, c *containers.Container) (parents, error) {
	if c.SnapshotKey == "" {
		return nil, nil
	}
	parent, err := s.parent(ctx, c.Snapshotter, c.SnapshotKey)
	if err != nil {
		return nil, err
	}
	made := parents{parent}
	if parent == "" || !mapsUsers(c) {
		return made, nil
	}
	if parent, err = s.parent(ctx, c.Snapshotter, parent); err != nil {
		return nil, err
	}
	return append(made, parent), nil
}

func (s *Store) parent(ctx context.Context, snapshotter, key string) (string, error) {
	response, err := s.snapshots.Stat(ctx, &snapshots.StatSnapshotRequest{Snapshotter: snapshotter, Key: key})
	if err != nil {
		return "", fmt.Errorf("look up its snapshot %s in %s: %w", key, snapshotter, explain(err))
	}
	return response.Info.Parent, nil
}

// mapsUsers says whether a container is in a user namespace of its own.
func mapsUsers(c *containers.Container) bool {
	var spec specs.Spec
	err := json.Unmarshal(c.Spec.GetValue(), &spec)
	return err == nil && spec.Linux != nil && len(spec.Linux.UIDMappings) > 0
}

func (s *Store) find(ctx context.Context, image string, target ocispec.Descriptor, made parents, blobs func() (string, error)) (oci.Found, error) {
	chosen, err := s.choose(ctx, target, made)
	if err != nil {
		return oci.Found{}, err
	}
	found := oci.Found{Image: image, Manifest: chosen.digest.String(), Platform: chosen.platform, Modules: oci.Modules(chosen.manifest)}
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

// manifest reads and parses a manifest and its configuration.
func (s *Store) manifest(ctx context.Context, d ocispec.Descriptor) (candidate, error) {
	data, err := s.read(ctx, d, oci.MaxManifest)
	if err != nil {
		return candidate{}, err
	}
	manifest, err := oci.ParseManifest(data)
	if err != nil {
		return candidate{}, fmt.Errorf("%s: %w", d.Digest, err)
	}
	c := candidate{digest: d.Digest, manifest: manifest}
	var config oci.Config
	if oci.IsImageConfig(manifest.Config.MediaType) || oci.IsWasmConfig(manifest.Config.MediaType) {
		if data, err = s.read(ctx, manifest.Config, oci.MaxConfig); err != nil {
			return candidate{}, fmt.Errorf("configuration: %w", err)
		}
		if config, err = oci.ParseConfig(manifest.Config.MediaType, data); err != nil {
			return candidate{}, fmt.Errorf("%s: %w", d.Digest, err)
		}
	}
	c.chain, c.platform = config.ChainID(), oci.FormatPlatform(config.Platform)
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

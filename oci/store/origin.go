package store

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"

	containers "github.com/containerd/containerd/api/services/containers/v1"
	images "github.com/containerd/containerd/api/services/images/v1"
	snapshots "github.com/containerd/containerd/api/services/snapshots/v1"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sync/errgroup"

	"github.com/wasmshim/containerd-shim-wasm/oci"
)

// origin is the image that a container was made from.
type origin struct {
	image  string        // its name in containerd
	target digest.Digest // that the name refers to
	candidate
}

// origin returns the image that a container was made from. For a container of CRI, that is the image under
// the name that the pod asked for whose configuration is the one by which CRI identifies it: the container's
// own image reference may be any image with the same configuration.
func (s *Store) origin(ctx context.Context, c *containers.Container) (origin, error) {
	asked, err := askedOfCRI(c)
	if err != nil {
		return origin{}, err
	}
	name := c.Image
	if asked.name != "" {
		name = asked.name
	}
	var target ocispec.Descriptor
	var gone error // set if the name is not in containerd
	made := made{config: asked.config}
	if made.config == "" {
		made.layers = c.Labels[oci.LayersLabel]
	}
	group, ask := errgroup.WithContext(ctx)
	group.Go(func() (err error) {
		target, err = s.Target(ask, name)
		if errors.Is(err, ErrNoImage) && asked.config != "" {
			gone, err = err, nil
		}
		return err
	})
	group.Go(func() (err error) { made.parents, err = s.parents(ask, c); return err })
	if err := group.Wait(); err != nil {
		return origin{}, err
	}
	if gone == nil {
		chosen, err := s.choose(ctx, target, made)
		definite := asked.config == "" || asked.name != "" || chosen.sure()
		if err == nil && definite {
			return origin{name, target.Digest, chosen}, nil
		}
		if err != nil && (asked.config == "" || !errors.Is(err, errOther) && !errors.Is(err, errMissing)) {
			return origin{}, fmt.Errorf("image %s: %w", name, err)
		}
	}
	return s.sole(ctx, made)
}

// sole returns the only image on the node with the configuration that a container was made from. The error
// names two of them if there are several.
func (s *Store) sole(ctx context.Context, made made) (origin, error) {
	found, err := s.originsWith(ctx, made)
	if err != nil {
		return origin{}, err
	}
	if own := slices.DeleteFunc(slices.Clone(found), func(o origin) bool { return !o.sure() }); len(own) > 0 {
		found = own // the others have only a copy of the configuration
	}
	if len(found) == 0 {
		return origin{}, fmt.Errorf("no image with the configuration %s is in containerd: pull it again", made.config)
	}
	for _, other := range found[1:] {
		if !slices.Equal(oci.Modules(other.manifest), oci.Modules(found[0].manifest)) {
			return origin{}, fmt.Errorf("images %s (%s) and %s (%s) have the same configuration, %s, which is all that containerd's CRI plugin "+
				"knows of this container's image: make an image of the artifact with \"image adapt\" or \"image pack\", or remove the other one",
				found[0].image, found[0].digest, other.image, other.digest, made.config)
		}
	}
	return found[0], nil
}

// listLimit is how many images are examined at the same time.
const listLimit = 8

// originsWith returns the images on the node that a container may have been made from, sorted by name. Errors
// of other images are ignored.
func (s *Store) originsWith(ctx context.Context, made made) ([]origin, error) {
	response, err := s.images.List(ctx, &images.ListImagesRequest{})
	if err != nil {
		return nil, fmt.Errorf("list images: %w", explain(err))
	}
	var mu sync.Mutex
	var found []origin
	group, ask := errgroup.WithContext(ctx)
	group.SetLimit(listLimit)
	seen := map[string]bool{}
	for _, image := range response.Images {
		t := image.Target
		if t == nil || seen[t.Digest] {
			continue
		}
		seen[t.Digest] = true
		group.Go(func() error {
			chosen, err := s.choose(ask, descriptor(t.MediaType, t.Digest, t.Size), made)
			if err == nil {
				mu.Lock()
				defer mu.Unlock()
				found = append(found, origin{image.Name, digest.Digest(t.Digest), chosen})
			}
			return ask.Err()
		})
	}
	if err := group.Wait(); err != nil {
		return nil, fmt.Errorf("look for images with the configuration %s: %w", made.config, err)
	}
	slices.SortFunc(found, func(a, b origin) int { return cmp.Compare(a.image, b.image) })
	return found, nil
}

// parents returns the name of the parent of the container's snapshot, which is the chain id of its image. For
// a container in a user namespace, containerd may have put a snapshot with other file owners between the two
// (containerd, client/container_opts_unix.go), so parents also returns the next one.
func (s *Store) parents(ctx context.Context, c *containers.Container) ([]string, error) {
	if c.SnapshotKey == "" {
		return nil, nil
	}
	parent, err := s.parent(ctx, c.Snapshotter, c.SnapshotKey)
	if err != nil {
		return nil, err
	}
	parents := []string{parent}
	if parent == "" || !mapsUsers(c) {
		return parents, nil
	}
	if parent, err = s.parent(ctx, c.Snapshotter, parent); err != nil {
		return nil, err
	}
	return append(parents, parent), nil
}

func (s *Store) parent(ctx context.Context, snapshotter, key string) (string, error) {
	response, err := s.snapshots.Stat(ctx, &snapshots.StatSnapshotRequest{Snapshotter: snapshotter, Key: key})
	if err != nil {
		return "", fmt.Errorf("look up its snapshot %s in %s: %w", key, snapshotter, explain(err))
	}
	return response.Info.Parent, nil
}

// mapsUsers reports whether a container is in a user namespace of its own.
func mapsUsers(c *containers.Container) bool {
	var spec specs.Spec
	err := json.Unmarshal(c.Spec.GetValue(), &spec)
	return err == nil && spec.Linux != nil && len(spec.Linux.UIDMappings) > 0
}

package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	snapshots "github.com/containerd/containerd/api/services/snapshots/v1"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/wasmshim/containerd-shim-wasm/oci"
)

// View prepares a read-only view of an unpacked image; done removes it.
func (s *Store) View(ctx context.Context, image, snapshotter string) (_ oci.View, done func() error, err error) {
	view, chain, err := s.look(ctx, image)
	if err != nil {
		return oci.View{}, nil, fmt.Errorf("image %s: %w", image, err)
	}
	view.Mounts, done, err = s.ViewChain(ctx, chain, snapshotter)
	if err != nil {
		return oci.View{}, nil, fmt.Errorf("view of image %s: %w", image, err)
	}
	return view, done, nil
}

// ViewChain prepares a read-only view of unpacked layers by their chain id; done removes it.
func (s *Store) ViewChain(ctx context.Context, chain, snapshotter string) (mounts []oci.Mount, done func() error, err error) {
	ctx, end, err := s.lease(ctx)
	if err != nil {
		return nil, nil, err
	}
	key := fmt.Sprintf("%s-view", leaseOf(ctx))
	response, err := s.snapshots.View(ctx, &snapshots.ViewSnapshotRequest{Snapshotter: snapshotter, Key: key, Parent: chain})
	if err != nil {
		return nil, nil, errors.Join(fmt.Errorf("it is not unpacked in %s: %w", snapshotter, explain(err)), end(false))
	}
	for _, m := range response.Mounts {
		mounts = append(mounts, oci.Mount{Type: m.Type, Source: m.Source, Target: m.Target, Options: m.Options})
	}
	return mounts, func() error {
		_, err := s.snapshots.Remove(ctx, &snapshots.RemoveSnapshotRequest{Snapshotter: snapshotter, Key: key})
		if err != nil {
			err = fmt.Errorf("remove the view: %w", explain(err))
		}
		return errors.Join(err, end(false))
	}, nil
}

// look returns the command that a container of an image would run, and the chain id of its files.
func (s *Store) look(ctx context.Context, image string) (oci.View, string, error) {
	target, err := s.Target(ctx, image)
	if err != nil {
		return oci.View{}, "", err
	}
	chosen, err := s.choose(ctx, target, made{})
	if err != nil {
		return oci.View{}, "", err
	}
	data, err := s.read(ctx, chosen.manifest.Config, oci.MaxConfig)
	if err != nil {
		return oci.View{}, "", err
	}
	var config ocispec.Image
	if err := json.Unmarshal(data, &config); err != nil {
		return oci.View{}, "", fmt.Errorf("decode configuration: %w", err)
	}
	c := config.Config
	return oci.View{Args: append(c.Entrypoint, c.Cmd...), Env: c.Env, Cwd: c.WorkingDir}, chosen.config.ChainID(), nil
}

package main

import (
	"context"
	"errors"
	"os"

	"github.com/opencontainers/go-digest"

	"github.com/wasmshim/containerd-shim-wasm/oci"
	"github.com/wasmshim/containerd-shim-wasm/oci/store"
	"github.com/wasmshim/containerd-shim-wasm/sandbox"
)

// unpackedImages is a source of images in a containerd, and of their files in a snapshotter.
type unpackedImages struct {
	*store.Store
	snapshotter string
}

// Files mounts an image's files where no other process sees them.
func (u unpackedImages) Files(ctx context.Context, chain digest.Digest) (_ *os.Root, done func() error, err error) {
	mounts, remove, err := u.ViewChain(ctx, chain.String(), u.snapshotter)
	if err != nil {
		return nil, nil, err
	}
	root, err := mountRoot(mounts)
	if err != nil {
		return nil, nil, errors.Join(err, remove())
	}
	return root, func() error { return errors.Join(root.Close(), remove()) }, nil
}

// mountRoot mounts a view in a mount namespace of its own, and opens it.
func mountRoot(view []oci.Mount) (*os.Root, error) {
	base, err := os.MkdirTemp("", "wasm-client-")
	if err != nil {
		return nil, err
	}
	defer os.Remove(base)
	sb, err := sandbox.New(base, "")
	if err != nil {
		return nil, err
	}
	defer sb.Close()
	var mounts []sandbox.Mount
	for _, m := range view {
		mounts = append(mounts, sandbox.Mount(m))
	}
	if err := sb.MountRootfs(mounts, nil, ""); err != nil {
		return nil, err
	}
	return sb.OpenRoot()
}

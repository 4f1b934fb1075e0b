package main

import (
	"context"
	"encoding/json"
	"errors"
	"io"

	"github.com/wasmshim/containerd-shim-wasm/oci/store"
)

// view is the shim's own verb: it prints a store.View, which stays until the input ends.
func view(ctx context.Context, args []string, stdio stdio) error {
	set := newFlags("view", "--image NAME [--snapshotter NAME] [--address SOCKET] [--namespace NAME]", stdio)
	containerd := containerdFlags(set)
	image := set.String("image", "", "the `name` of an image in containerd")
	snapshotter := set.String("snapshotter", "overlayfs", "the `name` of the snapshotter that has unpacked it")
	if err := parse(set, args, 0, 0); err != nil {
		return err
	}
	return containerd.with(func(s *store.Store) error {
		v, done, err := s.View(ctx, *image, *snapshotter)
		if err != nil {
			return err
		}
		err = json.NewEncoder(stdio.out).Encode(v)
		if err == nil {
			_, err = io.Copy(io.Discard, stdio.in)
		}
		return errors.Join(err, done())
	})
}

package main

import (
	"context"
	"errors"
	"io"

	"github.com/wasmshim/containerd-shim-wasm/oci/ask"
	"github.com/wasmshim/containerd-shim-wasm/oci/store"
)

// view is the shim's own verb: it prints an oci.View, which stays until the input ends.
func view(ctx context.Context, args []string, stdio stdio) error {
	set := newFlags(ask.ViewVerb, "--image NAME [--snapshotter NAME] [--address SOCKET] [--namespace NAME]", stdio)
	containerd := containerdFlags(set)
	q := ask.View{Snapshotter: "overlayfs"}
	q.Flags(set)
	if err := parse(set, args, 0, 0); err != nil {
		return err
	}
	return containerd.with(func(s *store.Store) error {
		v, done, err := s.View(ctx, q.Image, q.Snapshotter)
		if err != nil {
			return err
		}
		err = ask.WriteView(stdio.out, v)
		if err == nil {
			_, err = io.Copy(io.Discard, stdio.in)
		}
		return errors.Join(err, done())
	})
}

package main

import (
	"context"

	"github.com/wasmshim/containerd-shim-wasm/oci/ask"
	"github.com/wasmshim/containerd-shim-wasm/oci/store"
)

// watch is the shim's own verb: it prints the names of the images in a namespace of containerd, and of each
// image that is created or updated later, one per line.
func watch(ctx context.Context, args []string, stdio stdio) error {
	set := newFlags(ask.WatchVerb, "[--address SOCKET] [--namespace NAME]", stdio)
	containerd := containerdFlags(set)
	if err := parse(set, args, 0, 0); err != nil {
		return err
	}
	return containerd.with(func(s *store.Store) error {
		return s.Watch(ctx, func(image string) error { return ask.WriteImage(stdio.out, image) })
	})
}

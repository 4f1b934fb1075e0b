package main

import (
	"context"
	"errors"
	"time"

	"github.com/wasmshim/containerd-shim-wasm/oci/ask"
	"github.com/wasmshim/containerd-shim-wasm/oci/store"
)

// noteLimit is how long containerd may take to note the answer. Only the end of the container waits for it.
const noteLimit = 10 * time.Second

// find is the shim's own verb: it prints an oci.Found. For a container it then notes the answer in
// containerd.
func find(ctx context.Context, args []string, stdio stdio) error {
	set := newFlags(ask.FindVerb, "(--container ID | --image NAME) [--address SOCKET] [--namespace NAME]", stdio)
	containerd := containerdFlags(set)
	var q ask.Find
	q.Flags(set)
	if err := parse(set, args, 0, 0); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, ask.FindLimit)
	defer cancel()
	if (q.Container == "") == (q.Image == "") {
		return errors.New("find: give --container or --image; see find -h")
	}
	return containerd.with(func(s *store.Store) error {
		if q.Image != "" {
			found, err := s.FindImage(ctx, q.Image)
			if err != nil {
				return err
			}
			return ask.WriteFound(stdio.out, found)
		}
		return findContainer(ctx, s, q.Container, stdio)
	})
}

// findContainer prints the answer, then notes it in containerd.
func findContainer(ctx context.Context, s *store.Store, id string, stdio stdio) error {
	found, note, err := s.Find(ctx, id)
	if err == nil {
		err = ask.WriteFound(stdio.out, found)
	}
	if err != nil || note == nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), noteLimit)
	defer cancel()
	return note(ctx)
}

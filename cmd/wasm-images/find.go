package main

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"github.com/wasmshim/containerd-shim-wasm/oci/store"
)

// findLimit is how long containerd may take: a container waits.
const findLimit = 10 * time.Second

// noteLimit is how long containerd may take to note the answer, for which nobody waits but the container's
// end.
const noteLimit = 10 * time.Second

// find is the shim's own verb: it prints an oci.Found. What it has found of a container it then notes in
// containerd.
func find(ctx context.Context, args []string, stdio stdio) error {
	set := newFlags("find", "(--container ID | --image NAME) [--address SOCKET] [--namespace NAME]", stdio)
	containerd := containerdFlags(set)
	container := set.String("container", "", "the `id` of a container")
	image := set.String("image", "", "the `name` of an image in containerd")
	if err := parse(set, args, 0, 0); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, findLimit)
	defer cancel()
	if (*container == "") == (*image == "") {
		return errors.New("find: give --container or --image; see find -h")
	}
	return containerd.with(func(s *store.Store) error {
		if *image != "" {
			found, err := s.FindImage(ctx, *image)
			if err != nil {
				return err
			}
			return json.NewEncoder(stdio.out).Encode(found)
		}
		return findContainer(ctx, s, *container, stdio)
	})
}

// findContainer notes its answer, once it has given it.
func findContainer(ctx context.Context, s *store.Store, id string, stdio stdio) error {
	found, note, err := s.Find(ctx, id)
	if err == nil {
		err = json.NewEncoder(stdio.out).Encode(found)
	}
	if err != nil || note == nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), noteLimit)
	defer cancel()
	return note(ctx)
}

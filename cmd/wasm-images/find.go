package main

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"github.com/wasmshim/containerd-shim-wasm/oci"
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
	address, namespace := containerdFlags(set)
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
	s, err := store.Connect(*address)
	if err != nil {
		return err
	}
	defer s.Close()
	var found oci.Found
	var note func(context.Context) error
	if *container != "" {
		found, note, err = s.Find(ctx, *namespace, *container)
	} else {
		found, err = s.FindImage(ctx, *namespace, *image)
	}
	if err == nil {
		err = json.NewEncoder(stdio.out).Encode(found)
	}
	if err != nil || note == nil {
		return err
	}
	ctx, cancel = context.WithTimeout(context.WithoutCancel(ctx), noteLimit)
	defer cancel()
	return note(ctx)
}

package main

import (
	"errors"
	"flag"

	"github.com/wasmshim/containerd-shim-wasm/internal/endpoint"
	"github.com/wasmshim/containerd-shim-wasm/oci/store"
)

// containerd is the one that a verb is about, and which of its namespaces.
type containerd struct{ endpoint.Containerd }

// containerdFlags adds the flags that say which.
func containerdFlags(set *flag.FlagSet) *containerd {
	c := &containerd{}
	c.Flags(set)
	return c
}

// with connects to it for as long as do takes.
func (c containerd) with(do func(*store.Store) error) error {
	s, err := store.Connect(c.Address, c.Namespace)
	if err != nil {
		return err
	}
	return errors.Join(do(s), s.Close())
}

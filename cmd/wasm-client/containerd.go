package main

import (
	"errors"
	"flag"

	"github.com/wasmshim/containerd-shim-wasm/internal/endpoint"
	"github.com/wasmshim/containerd-shim-wasm/oci/store"
)

// containerd is the containerd that a verb uses, and the namespace in it.
type containerd struct{ endpoint.Containerd }

// containerdFlags adds the flags that select it.
func containerdFlags(set *flag.FlagSet) *containerd {
	c := &containerd{}
	c.Flags(set)
	return c
}

// with connects to containerd, calls do and disconnects.
func (c containerd) with(do func(*store.Store) error) error {
	s, err := store.Connect(c.Address, c.Namespace)
	if err != nil {
		return err
	}
	return errors.Join(do(s), s.Close())
}

package main

import (
	"flag"

	"github.com/wasmshim/containerd-shim-wasm/internal/endpoint"
)

// containerdFlags adds the flags that say which containerd and which of its namespaces a
// verb is about.
func containerdFlags(set *flag.FlagSet) (address, namespace *string) {
	var c endpoint.Containerd
	c.Flags(set)
	return &c.Address, &c.Namespace
}

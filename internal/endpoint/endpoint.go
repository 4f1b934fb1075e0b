// Package endpoint has the address of containerd: its default, and the flags and variables that change
// it.
package endpoint

import (
	"flag"
	"os"
)

// DefaultAddress is containerd's own default for its socket (defaults/defaults_unix.go).
const DefaultAddress = "/run/containerd/containerd.sock"

// Containerd is a namespace of a containerd: its socket and the namespace's name.
type Containerd struct{ Address, Namespace string }

// AddressFlag adds the flag for containerd's socket, with the variable of ctr.
func AddressFlag(set *flag.FlagSet, address *string) {
	set.StringVar(address, "address", environment("CONTAINERD_ADDRESS", DefaultAddress), "containerd's `socket`")
}

// Flags adds the flags that select a containerd and one of its namespaces, with the variables and
// defaults of ctr.
func (c *Containerd) Flags(set *flag.FlagSet) {
	AddressFlag(set, &c.Address)
	set.StringVar(&c.Namespace, "namespace", environment("CONTAINERD_NAMESPACE", "default"), "containerd's `namespace`: k8s.io is the kubelet's")
}

func environment(name, otherwise string) string {
	if value := os.Getenv(name); value != "" {
		return value
	}
	return otherwise
}

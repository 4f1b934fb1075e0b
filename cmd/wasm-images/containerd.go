package main

import (
	"flag"
	"os"
)

// containerdFlags adds the flags that say which containerd and which of its namespaces a
// verb is about, with the defaults and variables of ctr.
func containerdFlags(set *flag.FlagSet) (address, namespace *string) {
	address = set.String("address", env("CONTAINERD_ADDRESS", "/run/containerd/containerd.sock"), "containerd's `socket`")
	namespace = set.String("namespace", env("CONTAINERD_NAMESPACE", "default"), "containerd's `namespace`: k8s.io is the kubelet's")
	return address, namespace
}

func env(name, otherwise string) string {
	if value := os.Getenv(name); value != "" {
		return value
	}
	return otherwise
}

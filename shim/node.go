package shim

import (
	"github.com/sirupsen/logrus"

	"github.com/wasmshim/containerd-shim-wasm/module"
	"github.com/wasmshim/containerd-shim-wasm/sandbox/cgroup"
	"github.com/wasmshim/containerd-shim-wasm/shim/stock"
)

// Flags are what containerd gives a shim on its command line.
type Flags struct {
	Namespace, ID, Address, PublishBinary, Bundle string
	Debug                                         bool
}

// StateDir holds sockets and is where sandboxes are put together. It belongs to root alone, and may go
// at a reboot.
const StateDir = "/run/containerd-shim-wasm"

// node is what all containers of a shim have in common.
type node struct {
	flags     Flags
	bootstrap []byte // what containerd gave the start verb on its input
	stateDir  string
	log       *logrus.Entry
	modules   *module.Loader
}

// stock returns what the verbs of the stock shim are given.
func (n *node) stock() stock.Node {
	return stock.Node{
		Namespace: n.flags.Namespace, Address: n.flags.Address, PublishBinary: n.flags.PublishBinary, Debug: n.flags.Debug,
		Bootstrap: n.bootstrap, Log: n.log,
	}
}

// announceCgroup saves a container that is about to come some milliseconds.
func (n *node) announceCgroup() {
	if err := cgroup.Announce(); err != nil {
		n.log.WithError(err).Debug("announce the use of a cgroup: the next container starts some milliseconds later")
	}
}

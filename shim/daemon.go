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

// daemon is what all containers of a shim have in common. The delete verb has one, too, that serves nobody.
type daemon struct {
	flags     Flags
	bootstrap []byte // what containerd gave the start verb on its input
	stateDir  string
	log       *logrus.Entry
	modules   *module.Loader
}

// stock returns what the verbs of the stock shim are given.
func (d *daemon) stock() stock.Flags {
	return stock.Flags{
		Namespace: d.flags.Namespace, Address: d.flags.Address, PublishBinary: d.flags.PublishBinary, Debug: d.flags.Debug,
		Bootstrap: d.bootstrap, Log: d.log,
	}
}

// announceCgroup saves a container that is about to come some milliseconds.
func (d *daemon) announceCgroup() {
	if err := cgroup.Announce(); err != nil {
		d.log.WithError(err).Debug("announce the use of a cgroup: the next container starts some milliseconds later")
	}
}

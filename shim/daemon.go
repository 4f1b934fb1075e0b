package shim

import (
	"sync/atomic"

	"github.com/sirupsen/logrus"

	"github.com/wasmshim/containerd-shim-wasm/module"
	"github.com/wasmshim/containerd-shim-wasm/sandbox/cgroup"
	"github.com/wasmshim/containerd-shim-wasm/shim/stock"
)

// Flags are the command-line flags that containerd gives a shim.
type Flags struct {
	Namespace, ID, Address, PublishBinary, Bundle string
	Debug                                         bool
}

// StateDir holds sockets and the sandboxes that are being built. Only root has access, and it may disappear
// at a reboot.
const StateDir = "/run/containerd-shim-wasm"

// SocketDir holds the sockets of the daemons.
const SocketDir = StateDir + "/s"

// daemon holds the state that all containers of a shim share. The delete verb has one, too, that serves no
// requests.
type daemon struct {
	flags     Flags
	bootstrap []byte // containerd's input to the start verb
	stateDir  string
	log       *logrus.Entry
	loader    *module.Loader
	// workflow is the step of a workflow that the pod is, nil if our own program has not done the work of its init
	// container.
	workflow atomic.Pointer[workflow]
	// pause is the pod's pause container, nil if we have not launched it.
	pause atomic.Pointer[container]

	placeExecutor module.Place
	executor      module.Placed // that program
}

// stock returns the flags for the verbs of the stock shim.
func (d *daemon) stock() stock.Flags {
	return stock.Flags{
		Namespace: d.flags.Namespace, Address: d.flags.Address, PublishBinary: d.flags.PublishBinary, Debug: d.flags.Debug,
		Bootstrap: d.bootstrap, Log: d.log,
	}
}

// announceCgroup announces the use of a cgroup, so that the next container starts some milliseconds sooner.
func (d *daemon) announceCgroup() {
	if err := cgroup.Announce(); err != nil {
		d.log.WithError(err).Debug("announce the use of a cgroup: the next container starts some milliseconds later")
	}
}

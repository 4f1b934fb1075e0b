package shim

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"sync"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"github.com/sirupsen/logrus"
	"golang.org/x/sys/cpu"
	"golang.org/x/sys/unix"

	"github.com/wasmshim/containerd-shim-wasm/sandbox/cgroup"
)

// Flags are what containerd gives a shim on its command line.
type Flags struct {
	Namespace, ID, Address, PublishBinary, Bundle string
	Debug                                         bool
}

// Folders of the shim on a node. Both belong to root alone.
const (
	// StateDir holds sockets and is where sandboxes are put together; it may go
	// at a reboot.
	StateDir = "/run/containerd-shim-wasm"
	// LibDir holds the programs that travel inside the shim's binary.
	LibDir = "/var/lib/containerd-shim-wasm"
)

// node is what all containers of a shim have in common.
type node struct {
	flags     Flags
	bootstrap []byte // what containerd gave the start verb on its input
	stateDir  string
	log       *logrus.Entry

	programs Programs

	engineMu sync.Mutex
	engine   engine // set by the first Wasm container

	sweepOnce sync.Once

	imagesMu sync.Mutex
	images   *os.File // the program, set by the first container that needs it
}

// engine is what runs Wasm.
type engine struct {
	worker *os.File
	key    string // in the compile cache
}

// prepareEngine returns the engine, its worker's binary placed on the node. When
// the shim is upgraded the new one removes the old one's worker, and a file
// without a name cannot be mounted (move_mount(2)), so a pod that outlives the
// upgrade places its own again.
func (n *node) prepareEngine() (engine, error) {
	n.engineMu.Lock()
	defer n.engineMu.Unlock()
	if n.engine.worker != nil && hasName(n.engine.worker) {
		return n.engine, nil
	}
	worker, digest, err := n.programs.Worker(LibDir)
	if err != nil {
		return engine{}, fmt.Errorf("place the worker: %w", err)
	}
	n.engine = engine{worker: worker, key: EngineKey(digest)}
	return n.engine, nil
}

// EngineKey names, in the compile cache, the engine of a worker's binary with the
// given digest on this machine.
func EngineKey(worker string) string { return worker + cpuKey() }

func hasName(file *os.File) bool {
	var st unix.Stat_t
	return unix.Fstat(int(file.Fd()), &st) == nil && st.Nlink > 0
}

// cpuKey tells apart the machines that compiled code may not be moved between:
// wasmtime compiles for the features of the processor it runs on.
func cpuKey() string {
	features := fmt.Sprintf("%+v %+v", cpu.X86, cpu.ARM64)
	sum := sha256.Sum256([]byte(features))
	return hex.EncodeToString(sum[:4])
}

func (n *node) newCgroup(id string, spec *specs.Spec, systemd bool) (*cgroup.Cgroup, error) {
	cfg, err := cgroup.Config(id, spec, systemd)
	if err != nil {
		return nil, err
	}
	cg, err := cgroup.New(cfg)
	if err != nil {
		return nil, fmt.Errorf("create cgroup: %w", err)
	}
	return cg, nil
}

// announceCgroup saves a container that is about to come some milliseconds.
func (n *node) announceCgroup() {
	if err := cgroup.Announce(); err != nil {
		n.log.WithError(err).Debug("starting containers takes longer than it could")
	}
}

package shim

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"strings"
	"sync"

	"github.com/containerd/containerd/api/types/runc/options"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"github.com/sirupsen/logrus"
	"golang.org/x/sys/cpu"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/wasmshim/containerd-shim-wasm/config"
	"github.com/wasmshim/containerd-shim-wasm/runtime/cache"
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
	// LibDir holds the worker's binary.
	LibDir = "/var/lib/containerd-shim-wasm"
)

// node is what all containers of a shim have in common.
type node struct {
	flags      Flags
	bootstrap  []byte // what containerd gave the start verb on its input
	stateDir   string
	config     config.Config
	configPath string
	log        *logrus.Entry

	placeWorker func(dir string) (worker *os.File, digest string, err error)

	// Set by the first Wasm container (prepareEngine).
	engineOnce sync.Once
	engineErr  error
	worker     *os.File
	cache      *cache.Cache
}

// cpuKey tells apart the machines that compiled code may not be moved between:
// wasmtime compiles for the features of the processor it runs on.
func cpuKey() string {
	features := fmt.Sprintf("%+v %+v", cpu.X86, cpu.ARM64)
	sum := sha256.Sum256([]byte(features))
	return hex.EncodeToString(sum[:4])
}

// systemdCgroup tells whether systemd makes the container's cgroup. The kubelet's
// systemd driver shows in the path, whatever the options say; else the runtime's
// options tell, where they are runc's, and last the node's configuration.
func (n *node) systemdCgroup(spec *specs.Spec, any *anypb.Any) bool {
	if slice, _, ok := strings.Cut(spec.Linux.CgroupsPath, ":"); ok && strings.HasSuffix(slice, ".slice") {
		return true
	}
	var runc options.Options
	if any != nil && any.TypeUrl == string(runc.ProtoReflect().Descriptor().FullName()) && proto.Unmarshal(any.Value, &runc) == nil {
		return runc.SystemdCgroup
	}
	return n.config.SystemdCgroup
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

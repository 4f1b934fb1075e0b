// Package module leads from an entry point to the machine code of a module. It opens the file or the image's
// layer that the entry point names, starts a preparer that compiles it within the pod's limits, unless the
// compile cache has its code, and asks containerd to keep the code with the image.
//
// It compiles nothing in process, opens paths that an image or a guest has chosen only through package
// sandbox, and knows nothing of tasks.
package module

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"sync"

	"github.com/sirupsen/logrus"
	"golang.org/x/sys/cpu"
	"golang.org/x/sys/unix"

	"github.com/wasmshim/containerd-shim-wasm/sandbox"
)

// LibDir is the folder of a node that holds the programs that are embedded in the shim's binary. Only root
// has access.
const LibDir = "/var/lib/containerd-shim-wasm"

// ErrNative reports that an entry point does not lead to WebAssembly and does not claim to.
var ErrNative = errors.New("native container")

// Programs are the binaries that are embedded in the shim's own.
type Programs struct {
	Worker Place // runs and compiles Wasm
	Client Place // asks containerd about images
}

// Place puts a program's binary into dir, unless it is there, and returns it opened, with a digest that names
// its version.
type Place func(dir string) (program *os.File, digest string, err error)

// Loader loads modules for one namespace of a node's containerd.
type Loader struct {
	// Address is containerd's socket, Namespace the shim's namespace there.
	Address, Namespace string
	// StateDir is accessible to root only, and may disappear at a reboot.
	StateDir string
	Programs Programs
	Log      *logrus.Entry

	worker Placed

	sweepOnce sync.Once

	clientMu sync.Mutex
	client   *os.File // the program, set by the first caller that needs it
}

// engine is the worker's binary, which compiles and runs Wasm, and its version.
type engine struct {
	worker *os.File
	key    string // in the compile cache
}

// Worker returns the worker's binary, placed on the node. The caller does not close it.
func (l *Loader) Worker() (*os.File, error) {
	e, err := l.prepareEngine()
	return e.worker, err
}

// prepareEngine returns the engine, with its worker's binary placed on the node.
func (l *Loader) prepareEngine() (engine, error) {
	worker, digest, err := l.worker.Open(l.Programs.Worker)
	if err != nil {
		return engine{}, fmt.Errorf("place the worker: %w", err)
	}
	return engine{worker: worker, key: EngineKey(digest)}, nil
}

// prepareClient returns the program that asks containerd, placed on the node; again if an upgrade of the shim
// has removed it. Callers that still use the previous file keep it open.
func (l *Loader) prepareClient() (*os.File, error) {
	l.clientMu.Lock()
	defer l.clientMu.Unlock()
	if l.client != nil && hasName(l.client) {
		return l.client, nil
	}
	placed, _, err := l.Programs.Client(LibDir)
	if err != nil {
		return nil, fmt.Errorf("place wasm-client: %w", err)
	}
	defer placed.Close()
	if l.client, err = sandbox.Executable(placed); err != nil {
		return nil, fmt.Errorf("place wasm-client: %w", err)
	}
	return l.client, nil
}

// Placed is a program that is placed on the node. The zero value is one that is not yet.
type Placed struct {
	mu     sync.Mutex
	file   *os.File
	digest string
}

// Open returns the program, which it places if that has not been done, and the digest of its version. When the shim is
// upgraded, the new one removes the old one's programs, and a file without a name cannot be mounted (move_mount(2)), so
// a pod that outlives the upgrade places its own again. The caller does not close the file.
func (p *Placed) Open(place Place) (*os.File, string, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.file != nil && hasName(p.file) {
		return p.file, p.digest, nil
	}
	file, digest, err := place(LibDir)
	if err != nil {
		return nil, "", err
	}
	p.file, p.digest = file, digest
	return file, digest, nil
}

// hasName reports whether an open file still has a name.
func hasName(file *os.File) bool {
	var st unix.Stat_t
	return unix.Fstat(int(file.Fd()), &st) == nil && st.Nlink > 0
}

// EngineKey returns the name, in the compile cache, of the engine of a worker's binary with the given digest
// on this machine.
func EngineKey(worker string) string { return worker + cpuKey() }

// cpuKey distinguishes machines between which compiled code must not be moved: wasmtime compiles for the
// features of the processor it runs on.
var cpuKey = sync.OnceValue(func() string {
	features := fmt.Sprintf("%+v %+v", cpu.X86, cpu.ARM64)
	sum := sha256.Sum256([]byte(features))
	return hex.EncodeToString(sum[:4])
})

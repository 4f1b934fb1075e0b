package shim

import (
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/wasmshim/containerd-shim-wasm/argo"
	"github.com/wasmshim/containerd-shim-wasm/entrypoint"
	"github.com/wasmshim/containerd-shim-wasm/internal/environ"
	"github.com/wasmshim/containerd-shim-wasm/module"
	"github.com/wasmshim/containerd-shim-wasm/sandbox"
)

// command is what a process of a Wasm container is to run.
type command struct {
	// guest is the module and its arguments.
	guest []string
	// emissary is the whole command line if Argo's emissary comes before them.
	emissary []string
}

// parseCommand looks behind Argo's emissary, which the worker stands in for. A
// command line that the emissary itself would refuse is left to it.
func parseCommand(args []string) (command, error) {
	guest, wrapped, err := argo.Unwrap(args)
	if err != nil {
		return command{}, fmt.Errorf("%w: %w", module.ErrNative, err)
	}
	if !wrapped {
		return command{guest: guest}, nil
	}
	return command{guest: guest, emissary: args}, nil
}

// entry names the module.
func (c command) entry() entrypoint.Point { return entrypoint.Parse(c.guest[0]) }

// workers is how many of them run: Argo's contract takes one beside the guest's.
func (c command) workers() uint64 {
	if c.emissary == nil {
		return 1
	}
	return 2
}

// reserved is the directory that the worker and not the guest may write: what
// Argo's containers tell each other there must be true.
func (c command) reserved(env []string) sandbox.Reserved {
	if c.emissary == nil {
		return sandbox.Reserved{}
	}
	r := sandbox.Reserved{Path: argo.VolumePath}
	// By this file a guest tells Argo how far it is.
	if dir, name := path.Split(environ.Get(env, "ARGO_PROGRESS_FILE")); path.Clean(dir) == argo.VolumePath && name == "progress" {
		r.Shared = name
	}
	return r
}

// leaveExitCode writes the exit code of a container of Argo's whose worker could
// not: the wait container would wait for it for ever. It does nothing that the
// container itself could not have done: whoever writes the specification chooses the
// volume, its options, the container's user and every word of the command.
func (c command) leaveExitCode(spec *specs.Spec, code int) error {
	if len(c.emissary) == 0 || c.emissary[0] != argo.VolumePath+"/argoexec" {
		return nil // upstream names it so in each container (workflow/controller)
	}
	volume, ok := writable(spec, argo.VolumePath)
	if !ok {
		return nil
	}
	written := make(chan error, 1)
	go func() {
		written <- sandbox.InVolume(volume, spec.Process, func(root *os.File) error {
			return argo.WriteExitCode(root, environ.Get(spec.Process.Env, "ARGO_CONTAINER_NAME"), code)
		})
	}()
	select {
	case err := <-written:
		if errors.Is(err, unix.EROFS) {
			return nil // what the volume lies on is read-only
		}
		return err
	case <-time.After(stopLimit):
		return fmt.Errorf("the volume at %s has not taken the exit code within %s", argo.VolumePath, stopLimit)
	}
}

// writable returns the bind mount that a container sees at a path, and whether it may
// write there.
func writable(spec *specs.Spec, at string) (specs.Mount, bool) {
	hidden := func(by string) bool {
		by = path.Clean(by)
		return by == at || strings.HasPrefix(at, strings.TrimSuffix(by, "/")+"/")
	}
	if slices.ContainsFunc(slices.Concat(spec.Linux.MaskedPaths, spec.Linux.ReadonlyPaths), hidden) {
		return specs.Mount{}, false
	}
	for _, m := range slices.Backward(spec.Mounts) { // the last one shows
		if hidden(m.Destination) {
			isBind := m.Type == "bind" || slices.Contains(m.Options, "bind") || slices.Contains(m.Options, "rbind")
			return m, isBind && path.Clean(m.Destination) == at
		}
	}
	return specs.Mount{}, false
}

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

// command is the command line of a process of a Wasm container.
type command struct {
	// args are the entry point of the module and the guest's arguments.
	args []string
	// emissary is the whole command line if it starts with Argo's emissary.
	emissary []string
}

// parseCommand finds the guest's command line behind Argo's emissary, which the worker replaces. A command
// line that the emissary itself would refuse is left to the emissary.
func parseCommand(args []string) (command, error) {
	guest, wrapped, err := argo.Unwrap(args)
	if err != nil {
		return command{}, fmt.Errorf("%w: %w", module.ErrNative, err)
	}
	if !wrapped {
		return command{args: guest}, nil
	}
	return command{args: guest, emissary: args}, nil
}

// point returns the entry point that names the module.
func (c command) point() entrypoint.Point { return entrypoint.Parse(c.args[0]) }

// workers returns the number of workers: Argo's contract takes one beside the guest's.
func (c command) workers() uint64 {
	if c.emissary == nil {
		return 1
	}
	return 2
}

// reserved returns the directory that only the worker may write, not the guest: Argo's containers trust the
// files that they leave for each other there.
func (c command) reserved(env []string) sandbox.Reserved {
	if c.emissary == nil {
		return sandbox.Reserved{}
	}
	r := sandbox.Reserved{Path: argo.VolumePath}
	// A guest reports its progress to Argo in this file.
	if dir, name := path.Split(environ.Get(env, "ARGO_PROGRESS_FILE")); path.Clean(dir) == argo.VolumePath && name == "progress" {
		r.Shared = name
	}
	return r
}

// leaveExitCode writes the exit code of one of Argo's containers if its worker could not: otherwise the wait
// container would wait for ever. It does only what the container itself could have done: the author of the
// specification chooses the volume, its options, the container's user and every word of the command.
func (c command) leaveExitCode(spec *specs.Spec, code int) error {
	if len(c.emissary) == 0 || c.emissary[0] != argo.VolumePath+"/argoexec" {
		return nil // upstream uses this name in each container (workflow/controller)
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
			return nil // the file system of the volume is read-only
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
	for _, m := range slices.Backward(spec.Mounts) { // the last one is visible
		if hidden(m.Destination) {
			isBind := m.Type == "bind" || slices.Contains(m.Options, "bind") || slices.Contains(m.Options, "rbind")
			return m, isBind && path.Clean(m.Destination) == at
		}
	}
	return specs.Mount{}, false
}

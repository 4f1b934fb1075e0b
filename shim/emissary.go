package shim

import (
	"fmt"
	"path"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/wasmshim/containerd-shim-wasm/argo"
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
	emissary, ok, err := argo.Parse(args)
	if err != nil {
		return command{}, fmt.Errorf("%w: %w", errNative, err)
	}
	if !ok {
		return command{guest: args}, nil
	}
	return command{guest: append([]string{emissary.File}, emissary.Args...), emissary: args}, nil
}

// entry names the module.
func (c command) entry() entryPoint { return parseEntryPoint(c.guest[0]) }

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
	if dir, name := path.Split(environment(env, "ARGO_PROGRESS_FILE")); path.Clean(dir) == argo.VolumePath && name == "progress" {
		r.Shared = name
	}
	return r
}

// leaveExitCode writes the exit code of a container of Argo's whose worker could
// not: the wait container would wait for it for ever.
func (c command) leaveExitCode(spec *specs.Spec, code int) error {
	if c.emissary == nil {
		return nil
	}
	volume := sourceOf(spec.Mounts, argo.VolumePath)
	if volume == "" {
		return nil
	}
	return argo.WriteExitCode(volume, environment(spec.Process.Env, "ARGO_CONTAINER_NAME"), code)
}

// environment returns the value of a variable, empty if there is none.
func environment(env []string, name string) string {
	for _, e := range env {
		if value, ok := strings.CutPrefix(e, name+"="); ok {
			return value
		}
	}
	return ""
}

// sourceOf returns the directory of the host that is mounted at destination.
func sourceOf(mounts []specs.Mount, destination string) string {
	for _, m := range mounts {
		if path.Clean(m.Destination) == destination {
			return m.Source
		}
	}
	return ""
}

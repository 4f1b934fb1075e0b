// Package hooks runs, as root, those hooks of a container's specification that are programs of the host
// (https://github.com/opencontainers/runtime-spec/blob/main/config.md#posix-platform-hooks).
package hooks

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// Check refuses hooks that cannot be run, and names the field. A startContainer hook is a native
// program of the image that runs inside the container. A Wasm container does not support one.
func Check(hooks *specs.Hooks) error {
	if hooks == nil {
		return nil
	}
	if len(hooks.StartContainer) > 0 {
		return errors.New("hooks.startContainer is not supported in Wasm containers: remove it, or run the container with the runc runtime")
	}
	for kind, list := range map[string][]specs.Hook{
		//lint:ignore SA1019 prestart is deprecated, and still sent
		"prestart": hooks.Prestart, "createRuntime": hooks.CreateRuntime,
		"createContainer": hooks.CreateContainer, "poststart": hooks.Poststart, "poststop": hooks.Poststop,
	} {
		for i, hook := range list {
			if !filepath.IsAbs(hook.Path) {
				return fmt.Errorf("hooks.%s[%d].path %q is not absolute", kind, i, hook.Path)
			}
			if hook.Timeout != nil && *hook.Timeout <= 0 {
				return fmt.Errorf("hooks.%s[%d].timeout of %d s is not greater than zero", kind, i, *hook.Timeout)
			}
		}
	}
	return nil
}

// Create runs the prestart and the createRuntime hooks, up to the first that fails.
func Create(ctx context.Context, hooks *specs.Hooks, state specs.State) error {
	if hooks == nil {
		return nil
	}
	//lint:ignore SA1019 prestart is deprecated, and still sent
	if err := run(ctx, "prestart", hooks.Prestart, state); err != nil {
		return err
	}
	return run(ctx, "createRuntime", hooks.CreateRuntime, state)
}

// CreateContainer runs the createContainer hooks, up to the first that fails. Their working directory
// is the container's root file system, at rootfs. The caller must be locked to a thread that is in the
// container's namespaces, except its pid namespace. Each hook is process 1 of a new pid namespace below
// the runtime's. So no process in the container's pid namespace can see the hook, and the kernel kills
// all processes that the hook has left behind, before CreateContainer returns. A hook also ends with the
// caller's thread, unless the hook has changed its user: the kernel then clears the parent-death signal
// (PR_SET_PDEATHSIG(2const)).
func CreateContainer(ctx context.Context, hooks *specs.Hooks, state specs.State, rootfs string) error {
	if hooks == nil {
		return nil
	}
	return inContainer(rootfs).run(ctx, "createContainer", hooks.CreateContainer, state)
}

// inContainer returns the runner of createContainer hooks. A hook without an environment gets an empty
// one, as from runc. The container's environment could make it load a library of the image
// (CVE-2025-23266). The runtime's could too: containerd may set an LD_LIBRARY_PATH that ends with a
// colon, which means the working directory.
func inContainer(rootfs string) runner {
	return runner{
		dir: rootfs, env: []string{}, limit: createContainerLimit,
		attr: syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID, Pdeathsig: syscall.SIGKILL},
	}
}

// createContainerLimit bounds a createContainer hook without a timeout: a launch waits for it. It is
// half the time for which a kubelet waits for the creation of a container, so that the kubelet gets
// the error that names the hook.
const createContainerLimit = time.Minute

// Poststart runs the poststart hooks, up to the first that fails.
func Poststart(ctx context.Context, hooks *specs.Hooks, state specs.State) error {
	if hooks == nil {
		return nil
	}
	return run(ctx, "poststart", hooks.Poststart, state)
}

// Poststop runs every poststop hook, even when others fail, and joins their errors.
func Poststop(ctx context.Context, hooks *specs.Hooks, state specs.State) error {
	if hooks == nil {
		return nil
	}
	var failed error
	for _, hook := range hooks.Poststop {
		failed = errors.Join(failed, run(ctx, "poststop", []specs.Hook{hook}, state))
	}
	return failed
}

// run runs hooks in the runtime's namespaces.
func run(ctx context.Context, kind string, hooks []specs.Hook, state specs.State) error {
	// A hook without an environment gets the runtime's, as from runc.
	return runner{dir: state.Bundle}.run(ctx, kind, hooks, state)
}

// runner holds how hooks are run.
type runner struct {
	dir   string
	env   []string      // of a hook without any, nil for the runtime's
	limit time.Duration // of a hook without a timeout, 0 for none
	attr  syscall.SysProcAttr
}

func (r runner) run(ctx context.Context, kind string, hooks []specs.Hook, state specs.State) error {
	text, err := json.Marshal(state)
	if err != nil {
		return fmt.Errorf("encode the state for %s hooks: %w", kind, err)
	}
	for _, hook := range hooks {
		if err := r.runOne(ctx, hook, text); err != nil {
			return fmt.Errorf("run %s hook %s: %w", kind, hook.Path, err)
		}
	}
	return nil
}

// outputPatience is how long runOne waits for the end of a hook's output after the hook has ended: a
// process that the hook has left behind may hold the output open for ever.
const outputPatience = 2 * time.Second

func (r runner) runOne(ctx context.Context, hook specs.Hook, state []byte) error {
	limit := r.limit
	if hook.Timeout != nil {
		limit = time.Duration(*hook.Timeout) * time.Second
	}
	if limit > 0 {
		var cancel func()
		ctx, cancel = context.WithTimeoutCause(ctx, limit, fmt.Errorf("it has been running for its timeout of %v", limit))
		defer cancel()
	}
	command := exec.CommandContext(ctx, hook.Path)
	if len(hook.Args) > 0 {
		command.Args = hook.Args
	}
	command.Env, command.Dir = hook.Env, r.dir
	if len(hook.Env) == 0 {
		command.Env = r.env
	}
	command.Stdin = bytes.NewReader(state)
	var output head
	command.Stdout, command.Stderr = &output, &output
	// Cancel kills the hook's process group, with the processes that the hook has started.
	attr := r.attr
	attr.Setpgid = true
	command.SysProcAttr = &attr
	command.Cancel = func() error {
		_ = syscall.Kill(-command.Process.Pid, syscall.SIGKILL) // fails if the hook has left that group
		return command.Process.Kill()
	}
	command.WaitDelay = outputPatience
	if err := closeOnExec(); err != nil {
		return err
	}
	err := command.Run()
	switch {
	case err == nil || errors.Is(err, exec.ErrWaitDelay):
		return nil
	case ctx.Err() != nil:
		err = context.Cause(ctx)
	}
	if text := bytes.TrimSpace(output.text); len(text) > 0 {
		return fmt.Errorf("%w: %s", err, text)
	}
	return err
}

// closeOnExec marks all descriptors of the runtime close-on-exec, so that a program gets only those that
// exec.Cmd passes. The runtime may have been started with descriptors that are not marked.
func closeOnExec() error {
	if err := unix.CloseRange(3, math.MaxInt32, unix.CLOSE_RANGE_CLOEXEC); err != nil {
		return fmt.Errorf("mark descriptors to be closed: %w", err)
	}
	return nil
}

// head keeps the first headSize bytes that are written to it.
type head struct{ text []byte }

const headSize = 4 << 10

func (h *head) Write(p []byte) (int, error) {
	h.text = append(h.text, p[:min(len(p), headSize-len(h.text))]...)
	return len(p), nil
}

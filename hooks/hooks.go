// Package hooks runs those hooks of a container's specification that belong into the runtime's own
// namespaces, as root on the host
// (https://github.com/opencontainers/runtime-spec/blob/main/config.md#posix-platform-hooks).
package hooks

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// Check refuses hooks that cannot be run, and names the field. Two kinds belong into the container:
// startContainer is a native program of the image, which a Wasm container has no room for;
// createContainer is a program of the host that sees the container's mounts, and when the
// container has a process, that has left the host's files.
func Check(hooks *specs.Hooks) error {
	if hooks == nil {
		return nil
	}
	for kind, list := range map[string][]specs.Hook{"createContainer": hooks.CreateContainer, "startContainer": hooks.StartContainer} {
		if len(list) > 0 {
			return fmt.Errorf("hooks.%s is not supported in Wasm containers: remove it, or run the container with the runc runtime", kind)
		}
	}
	for kind, list := range map[string][]specs.Hook{
		//lint:ignore SA1019 prestart is deprecated, and still sent
		"prestart": hooks.Prestart, "createRuntime": hooks.CreateRuntime, "poststart": hooks.Poststart, "poststop": hooks.Poststop,
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

// Poststart runs the poststart hooks, up to the first that fails.
func Poststart(ctx context.Context, hooks *specs.Hooks, state specs.State) error {
	if hooks == nil {
		return nil
	}
	return run(ctx, "poststart", hooks.Poststart, state)
}

// Poststop runs every poststop hook, whatever becomes of the others, and joins their errors.
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

func run(ctx context.Context, kind string, hooks []specs.Hook, state specs.State) error {
	text, err := json.Marshal(state)
	if err != nil {
		return fmt.Errorf("encode the state for %s hooks: %w", kind, err)
	}
	for _, hook := range hooks {
		if err := runOne(ctx, hook, state.Bundle, text); err != nil {
			return fmt.Errorf("run %s hook %s: %w", kind, hook.Path, err)
		}
	}
	return nil
}

// outputPatience is how long the end of a hook's output is waited for once the hook has ended: what
// it has started and left behind may hold it open for ever.
const outputPatience = 2 * time.Second

func runOne(ctx context.Context, hook specs.Hook, dir string, state []byte) error {
	if hook.Timeout != nil {
		limit := time.Duration(*hook.Timeout) * time.Second
		var cancel func()
		ctx, cancel = context.WithTimeoutCause(ctx, limit, fmt.Errorf("it has been running for its timeout of %v", limit))
		defer cancel()
	}
	command := exec.CommandContext(ctx, hook.Path)
	if len(hook.Args) > 0 {
		command.Args = hook.Args
	}
	// Without any of its own it has the runtime's environment, as from runc.
	command.Env, command.Dir = hook.Env, dir
	command.Stdin = bytes.NewReader(state)
	var output head
	command.Stdout, command.Stderr = &output, &output
	// It goes with what it has started.
	command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	command.Cancel = func() error { return syscall.Kill(-command.Process.Pid, syscall.SIGKILL) }
	command.WaitDelay = outputPatience
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

// head keeps the beginning of what is written to it.
type head struct{ text []byte }

const headSize = 4 << 10

func (h *head) Write(p []byte) (int, error) {
	h.text = append(h.text, p[:min(len(p), headSize-len(h.text))]...)
	return len(p), nil
}

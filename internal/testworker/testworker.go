// Package testworker compiles modules with the worker's binary, for tests and the benchmark. "make
// build" makes the binary. No shipped binary imports the package.
package testworker

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/wasmshim/containerd-shim-wasm/internal/repo"
	"github.com/wasmshim/containerd-shim-wasm/worker/control"
)

// Path returns the path of the worker's binary.
func Path() (string, error) {
	root, err := repo.Root()
	if err != nil {
		return "", err
	}
	path := filepath.Join(root, "cmd", "containerd-shim-wasm-v1", "programs", "wasm-worker")
	if _, err := os.Stat(path); err != nil {
		return "", fmt.Errorf("%w: make build makes it", err)
	}
	return path, nil
}

// Compile compiles the module in the file wasm into a new file at path.
func Compile(ctx context.Context, wasm, path string) error {
	worker, err := Path()
	if err != nil {
		return err
	}
	module, err := os.Open(wasm)
	if err != nil {
		return err
	}
	defer module.Close()
	out, err := os.Create(path)
	if err != nil {
		return err
	}
	defer out.Close()
	ours, theirs, err := control.Pair()
	if err != nil {
		return err
	}
	defer ours.Close()
	command := exec.CommandContext(ctx, worker)
	command.Env = []string{control.RoleEnv + "=" + control.RoleCompile}
	command.Stdin, command.Stdout, command.Stderr = module, out, os.Stderr
	command.ExtraFiles = []*os.File{theirs.File}
	err = command.Start()
	theirs.Close()
	if err != nil {
		return err
	}
	order := control.Compile{Name: wasm, MaxSize: 1 << 30}
	err = ours.Compile(order)
	report, reportErr := ours.Report()
	err = errors.Join(err, reportErr, command.Wait())
	if report.Error != "" {
		err = errors.Join(errors.New(report.Error), err)
	}
	if err != nil {
		return fmt.Errorf("compile %s: %w", wasm, err)
	}
	return nil
}

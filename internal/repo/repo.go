// Package repo finds the project's own source tree, for tests, the demo and the benchmark, which
// keep what they build in its ignored .cache folder. No shipped binary imports it.
package repo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

const moduleLine = "module github.com/wasmshim/containerd-shim-wasm\n"

// Root returns the folder that holds the project's go.mod: the working directory or the nearest
// one above it. It fails outside of the tree.
func Root() (string, error) {
	start, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for dir := start; ; dir = filepath.Dir(dir) {
		text, err := os.ReadFile(filepath.Join(dir, "go.mod"))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return "", err
		}
		if bytes.HasPrefix(text, []byte(moduleLine)) {
			return dir, nil
		}
		if dir == filepath.Dir(dir) {
			return "", fmt.Errorf("%s is not inside the source tree of containerd-shim-wasm", start)
		}
	}
}

// Cache returns the named folder below .cache at the root of the tree and creates it.
func Cache(name string) (string, error) {
	root, err := Root()
	if err != nil {
		return "", err
	}
	dir := filepath.Join(root, ".cache", name)
	return dir, os.MkdirAll(dir, 0o755)
}

// BuildTools runs hack/tools/build.sh, which builds those of the named tools that are missing and reports
// that on standard error. It returns the lines of its output: the folder of each, or with
// --list the names and versions of all.
func BuildTools(ctx context.Context, args ...string) ([]string, error) {
	root, err := Root()
	if err != nil {
		return nil, err
	}
	command := exec.CommandContext(ctx, filepath.Join(root, "hack", "tools", "build.sh"), args...)
	command.Stderr = os.Stderr
	output, err := command.Output()
	if err != nil {
		return nil, fmt.Errorf("hack/tools/build.sh %s: %w", strings.Join(args, " "), err)
	}
	return strings.Split(strings.TrimSpace(string(output)), "\n"), nil
}

// programsEnv names a folder with ready programs, which Program does not build: the machine may be unable
// to.
const programsEnv = "TEST_PROGRAMS"

// Program builds the Go program in a folder of the tree, without cgo, into dir, and returns its path.
func Program(folder, dir string) (string, error) {
	name := filepath.Base(folder)
	if built := os.Getenv(programsEnv); built != "" {
		return filepath.Join(built, name), nil
	}
	root, err := Root()
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, name)
	build := exec.Command("go", "build", "-o", path, "./"+folder)
	build.Dir = root
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if text, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build %s: %w\n%s", folder, err, text)
	}
	return path, nil
}

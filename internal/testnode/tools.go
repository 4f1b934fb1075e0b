package testnode

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/wasmshim/containerd-shim-wasm/internal/repo"
)

// DefaultVersion is the containerd that the demo and single-version tests use.
const DefaultVersion = "2.2"

// Versions returns the versions of containerd that tests run against, oldest first. The exact
// releases are pinned below hack/tools.
func Versions() []string { return []string{"1.7", "2.1", "2.2", "2.4"} }

func sourceTree() (string, error) { return repo.Root() }

// buildScript runs hack/tools/build.sh, which tells on standard error what it builds, and returns
// the lines of its output.
func buildScript(ctx context.Context, args ...string) ([]string, error) {
	root, err := sourceTree()
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

// Tools returns the folder of each named tool, built first if it is not there yet.
func Tools(ctx context.Context, names ...string) ([]string, error) {
	return buildScript(ctx, names...)
}

// release returns the full version of a containerd.
func release(ctx context.Context, version string) (string, error) {
	pinned, err := buildScript(ctx, "--list")
	if err != nil {
		return "", err
	}
	for _, line := range pinned {
		if name, release, ok := strings.Cut(line, " "); ok && name == "containerd-"+version {
			return release, nil
		}
	}
	return "", fmt.Errorf("no containerd %q below hack/tools, known: %s", version, strings.Join(Versions(), ", "))
}

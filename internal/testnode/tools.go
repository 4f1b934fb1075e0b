package testnode

import (
	"context"
	"fmt"
	"os"
	"strings"

	"github.com/wasmshim/containerd-shim-wasm/internal/repo"
)

// DefaultVersion is the containerd that the demo and single-version tests use.
const DefaultVersion = "2.2"

// versionsEnv names, separated by commas, the versions of containerd to test against.
const versionsEnv = "CONTAINERD_VERSIONS"

// Narrowed reports whether the environment selects the [Versions], so that some may be missing.
func Narrowed() bool { return os.Getenv(versionsEnv) != "" }

// Versions returns the versions of containerd that tests run against, oldest first, or those that
// $CONTAINERD_VERSIONS names. The exact releases are pinned below hack/tools.
func Versions() []string {
	if Narrowed() {
		return strings.Split(os.Getenv(versionsEnv), ",")
	}
	return []string{"1.7", "2.1", "2.2", "2.4"}
}

func sourceTree() (string, error) { return repo.Root() }

// Tools returns the folder of each named tool, and builds it first if it is missing.
func Tools(ctx context.Context, names ...string) ([]string, error) {
	return repo.BuildTools(ctx, names...)
}

// release returns the full version of a containerd.
func release(ctx context.Context, version string) (string, error) {
	pinned, err := repo.BuildTools(ctx, "--list")
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

package testcluster

import (
	"context"
	"fmt"
	"strings"

	"github.com/wasmshim/containerd-shim-wasm/internal/repo"
)

// findTools builds the missing tools, one after the other.
func (c *Cluster) findTools(ctx context.Context) (string, error) {
	names := append([]string{"kubernetes", "etcd", "versitygw", "cni-plugins", "runc", "containerd-" + c.state.Containerd}, c.state.Argo...)
	pinned, err := repo.BuildTools(ctx, "--list")
	if err != nil {
		return "", err
	}
	versions := map[string]string{}
	for _, line := range pinned {
		name, version, _ := strings.Cut(line, " ")
		versions[name] = version
	}
	folders, err := repo.BuildTools(ctx, names...)
	if err != nil {
		return "", err
	}
	if len(folders) != len(names) {
		return "", fmt.Errorf("hack/tools/build.sh named %d folders for %d tools", len(folders), len(names))
	}
	if c.state.Tools != nil && c.state.Holder.alive() {
		return fmt.Sprintf("%d, found", len(names)), nil // the tools that the cluster was started with
	}
	c.state.Tools = map[string]tool{}
	for i, name := range names {
		c.state.Tools[name] = tool{Bin: folders[i], Version: versions[name]}
	}
	return fmt.Sprintf("%d, found", len(names)), nil
}

package testnode

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// Timeouts are how long containerd waits for shims, a table of its configuration. After its default of a few
// seconds, containerd leaves the rest of a dead shim where it is, or takes a task's state for unknown. In a
// test on a busy machine that is of no use.
const Timeouts = `[timeouts]
  "io.containerd.timeout.shim.cleanup" = "1m"
  "io.containerd.timeout.shim.load" = "1m"
  "io.containerd.timeout.shim.shutdown" = "1m"
  "io.containerd.timeout.task.state" = "1m"`

func (n *Node) config() string { return filepath.Join(n.Dir, "config.toml") }

// writeConfig writes containerd's configuration: all paths are below the node's folder, and nothing
// conflicts with a second containerd on the machine.
func (n *Node) writeConfig() error {
	extra := filepath.Join(n.Dir, "extra.toml")
	format := 3
	if n.Version == "1.7" {
		format = 2
	}
	level := n.options.LogLevel
	if level == "" {
		level = "debug"
	}
	disabled := []string{
		"io.containerd.snapshotter.v1.blockfile",
		"io.containerd.snapshotter.v1.btrfs",
		"io.containerd.snapshotter.v1.devmapper",
		"io.containerd.snapshotter.v1.erofs",
		"io.containerd.snapshotter.v1.zfs",
	}
	if !n.options.CRI {
		disabled = append(disabled, "io.containerd.grpc.v1.cri", "io.containerd.cri.v1.images", "io.containerd.cri.v1.runtime")
	}
	text := strings.Join([]string{
		fmt.Sprintf("version = %d", format),
		fmt.Sprintf("root = %q", n.Root()),
		fmt.Sprintf("state = %q", n.State()),
		fmt.Sprintf("imports = [%q]", extra),
		"oom_score = 0", // lowering it needs CAP_SYS_RESOURCE, which test machines lack
		fmt.Sprintf("disabled_plugins = [\"%s\"]", strings.Join(disabled, `", "`)),
		Timeouts,
		"[grpc]",
		fmt.Sprintf("  address = %q", n.Address()),
		"[debug]",
		fmt.Sprintf("  level = %q", level),
		`[plugins."io.containerd.nri.v1.nri"]`,
		fmt.Sprintf("  disable = %v", !n.options.NRI),
		fmt.Sprintf("  socket_path = %q", n.NRI()), // by default the machine's
		fmt.Sprintf("  plugin_path = %q", filepath.Join(n.Dir, "nri")),
		fmt.Sprintf("  plugin_config_path = %q", filepath.Join(n.Dir, "nri")),
		`[plugins."io.containerd.internal.v1.opt"]`,
		fmt.Sprintf("  path = %q", filepath.Join(n.Dir, "opt")),
		n.criConfig(),
	}, "\n")
	if err := os.WriteFile(n.config(), []byte(text), 0o644); err != nil {
		return err
	}
	return os.WriteFile(extra, []byte(fmt.Sprintf("version = %d\n%s", format, n.options.Config)), 0o644)
}

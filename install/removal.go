package install

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

func inspectForRemoval(ctx context.Context, o Options) (*node, error) {
	n, err := inspect(ctx, o)
	if manual := (*ManualError)(nil); errors.As(err, &manual) {
		return nil, fmt.Errorf("%s: %s; nothing was removed", manual.Path, manual.Reason)
	}
	return n, err
}

// planRemoval returns the changes that take the runtime away, last file first.
func (n *node) planRemoval() ([]change, error) {
	var changes []change
	for _, f := range slices.Backward(n.files) {
		if table(criSection(f.tree), "containerd")["default_runtime_name"] == Handler {
			return nil, fmt.Errorf("%s makes %q the default runtime; choose another one first", f.path, Handler)
		}
		if runtimeEntry(f.tree) != nil && !n.options.Force {
			return nil, fmt.Errorf("%s has a runtime %q that install did not write; remove it by hand first, "+
				"or give --force to keep it", f.path, Handler)
		}
		if f.block == nil {
			continue
		}
		if f.block.edited && !n.options.Force {
			return nil, fmt.Errorf("%s: the block of containerd-shim-wasm was edited by hand; remove it by hand, "+
				"or give --force to remove it with what was added", f.path)
		}
		if err := f.removable(); err != nil {
			return nil, err
		}
		c := change{path: f.path, before: f.raw, after: f.text, hadLocalPull: f.block.hasLocalPull()}
		if c.after == nil {
			c.after = []byte{}
		}
		if isHeader(f.text) {
			c.after = nil
		}
		changes = append(changes, c)
	}
	return changes, nil
}

// removable fails if the rest of the file would change its meaning without our block.
// That happens if keys were added right after the block: TOML reads them as part of
// our last table. A file that is not TOML as a whole can only gain.
func (f *configFile) removable() error {
	whole, err := parse(f.raw)
	if err != nil {
		return nil
	}
	ours, err := parse([]byte(f.block.body))
	if err != nil {
		return nil
	}
	if d := difference(prune(merge(f.tree, ours)), prune(whole)); d != "" {
		return fmt.Errorf("%s: removing the block of containerd-shim-wasm would change the meaning of %q, which belongs to "+
			"a table in it; move that away first", f.path, d)
	}
	return nil
}

// refuseWhileInUse fails while shims run: containerd needs the binary to clean up after
// their containers.
func refuseWhileInUse(o Options) error {
	if o.Force {
		return nil
	}
	links, err := filepath.Glob("/proc/[0-9]*/exe")
	if err != nil {
		return err
	}
	binary, err := filepath.Abs(o.binaryPath())
	if err != nil {
		return err
	}
	if resolved, err := filepath.EvalSymlinks(filepath.Dir(binary)); err == nil {
		binary = filepath.Join(resolved, BinaryName)
	}
	var pids []string
	for _, link := range links {
		exe, err := os.Readlink(link)
		if err != nil || strings.TrimSuffix(exe, " (deleted)") != binary {
			continue
		}
		if pid := filepath.Base(filepath.Dir(link)); pid != fmt.Sprint(os.Getpid()) {
			pids = append(pids, pid)
		}
	}
	if len(pids) == 0 {
		return nil
	}
	return fmt.Errorf("%s still runs containers (pid %s); remove them first, or give --force",
		o.binaryPath(), strings.Join(pids, ", "))
}

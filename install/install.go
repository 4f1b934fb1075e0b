// Package install places the shim on a node and enters it into containerd's
// configuration, and takes both away again.
//
// It edits containerd's configuration as text: what the operator wrote stays byte
// for byte, the runtime's entry is one marked block at the end of a file, or a
// drop-in file of its own where that is safe. Every edit is checked before it
// counts, by parsing and by asking containerd itself what it reads; what fails is
// undone.
//
// The package never restarts containerd, never touches a running container and
// never removes text or files that it has not written.
package install

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/wasmshim/containerd-shim-wasm/config"
)

// BinaryName is the name that containerd derives from RuntimeType and looks for
// on its PATH.
const BinaryName = "containerd-shim-wasm-v1"

// Options says what to install where. The zero value of a field means its default.
type Options struct {
	// Config is containerd's configuration file: /etc/containerd/config.toml.
	Config string
	// BinDir is the folder for the binary, on containerd's PATH: /usr/local/bin.
	BinDir string
	// Containerd is the containerd binary that reads Config: the one on PATH.
	Containerd string
	// ContainerdVersion overrides what that binary says, such as "1.7.35". A
	// binary of another version is then not asked to check the result.
	ContainerdVersion string
	// NodeConfig is the shim's own configuration file: config.DefaultPath.
	NodeConfig string
	// Binary is the file to install: the running program.
	Binary string
	// Verifiers is the folder of containerd's image verifiers unless Config names
	// another: /opt/containerd/image-verifier/bin.
	Verifiers string
	// DryRun reports what would be done and writes nothing.
	DryRun bool
	// Force lets Uninstall remove a block that was edited by hand, and the binary
	// while containers run with it.
	Force bool
}

func (o Options) withDefaults() Options {
	set := func(field *string, value string) {
		if *field == "" {
			*field = value
		}
	}
	set(&o.Config, "/etc/containerd/config.toml")
	set(&o.BinDir, "/usr/local/bin")
	set(&o.NodeConfig, config.DefaultPath)
	set(&o.Binary, "/proc/self/exe")
	set(&o.Verifiers, DefaultVerifiers)
	return o
}

// Report describes what Install or Uninstall did, or would do in a dry run.
type Report struct {
	// Lines say what was done to which file, one each, for people.
	Lines []string
	// Changed reports whether anything was, or would be, written.
	Changed bool
	// Files are the paths that were, or would be, written or removed, in this order.
	Files []string
	// Restart is the command that makes containerd read its changed
	// configuration; empty when it did not change.
	Restart string

	dry bool
}

func (r *Report) say(format string, args ...any) {
	r.Lines = append(r.Lines, fmt.Sprintf(format, args...))
}

func (r *Report) did(path, format string, args ...any) {
	r.Changed = true
	r.Files = append(r.Files, path)
	if r.dry {
		format = "would " + format
	}
	r.say(format, args...)
}

// ManualError means that a file cannot be edited without risk. It has the text that the
// operator has to add.
type ManualError struct {
	Path   string
	Reason string
	// Entry is the text to add by hand, in the dialect of the file.
	Entry string
}

func (e *ManualError) Error() string {
	return fmt.Sprintf("%s: %s; it was left as it is, add the runtime by hand", e.Path, e.Reason)
}

// Install places binary, node configuration and runtime entry, in this order, so
// that containerd never knows a runtime that is not there. What is there already
// is left alone. The report holds what was done even when an error ends it.
func Install(ctx context.Context, o Options) (Report, error) {
	o = o.withDefaults()
	r := Report{dry: o.DryRun}
	n, err := inspect(ctx, o)
	if err != nil {
		return r, err
	}
	c, err := n.planInstall()
	if err != nil {
		return r, err
	}
	for _, note := range n.notes {
		r.say("%s", note)
	}
	if err := installBinary(o, &r); err != nil {
		return r, err
	}
	if err := installNodeConfig(o, n.systemdCgroup(), &r); err != nil {
		return r, err
	}
	switch {
	case c == nil:
		r.say("already installed: runtime %q in %s", Handler, n.entryPath)
	case o.DryRun:
		r.did(c.path, "add runtime %q to %s", Handler, c.path)
	default:
		if err := n.apply(ctx, *c, &r); err != nil {
			return r, err
		}
		r.did(c.path, "added runtime %q to %s", Handler, c.path)
	}
	if c != nil {
		r.Restart = restartCommand(o.Config)
	}
	return r, nil
}

// Entry returns what Install would add to containerd's configuration, as text, also
// where Install would refuse to edit the file.
func Entry(ctx context.Context, o Options) (string, error) {
	n, err := inspect(ctx, o.withDefaults())
	var t target
	if err == nil {
		t, err = n.target()
	}
	if manual := (*ManualError)(nil); errors.As(err, &manual) {
		return manual.Entry, nil
	}
	if err != nil {
		return "", err
	}
	return n.entry(t), nil
}

// Uninstall takes away what Install placed, in the opposite order. The edited
// configuration file is byte for byte what it was. Nothing installed is no error.
func Uninstall(ctx context.Context, o Options) (Report, error) {
	o = o.withDefaults()
	r := Report{dry: o.DryRun}
	n, err := inspectForRemoval(ctx, o)
	if err != nil {
		return r, err
	}
	changes, err := n.planRemoval()
	if err != nil {
		return r, err
	}
	if err := refuseWhileInUse(o); err != nil {
		return r, err
	}
	for _, c := range changes {
		what := fmt.Sprintf("runtime %q from %s", Handler, c.path)
		if c.after == nil {
			what = c.path
		}
		r.Restart = restartCommand(o.Config)
		if o.DryRun {
			r.did(c.path, "remove %s", what)
			continue
		}
		if err := n.apply(ctx, c, &r); err != nil {
			return r, err
		}
		r.did(c.path, "removed %s", what)
	}
	if err := uninstallNodeConfig(o, &r); err != nil {
		return r, err
	}
	if err := uninstallBinary(o, &r); err != nil {
		return r, err
	}
	if !r.Changed {
		r.say("nothing to remove")
	}
	return r, nil
}

// apply makes one change and undoes it when containerd then reads anything but
// the wanted difference.
func (n *node) apply(ctx context.Context, c change, r *Report) error {
	var before map[string]any
	if n.containerd.path != "" {
		var err error
		if before, err = n.containerd.dump(ctx, n.options.Config); err != nil && c.adds {
			return fmt.Errorf("containerd does not accept %s as it is: %w", n.options.Config, err)
		}
	}
	if err := c.write(); err != nil {
		return err
	}
	if n.containerd.path == "" {
		r.say("not checked with containerd: no binary of its version found")
		return nil
	}
	if before == nil {
		return nil
	}
	after, err := n.containerd.dump(ctx, n.options.Config)
	if err == nil {
		err = compareDumps(before, after, c, n.options.NodeConfig)
	}
	if errors.Is(err, errCRIDisabled) {
		r.say("note: containerd's CRI plugin is disabled, so Kubernetes cannot use runtime %q", Handler)
		return nil
	}
	if err == nil {
		return nil
	}
	if undo := c.undo(); undo != nil {
		return fmt.Errorf("%s: %w; putting the file back failed too: %w", c.path, err, undo)
	}
	if !c.adds {
		return fmt.Errorf("%s was put back: without the block %w", c.path, err)
	}
	return &ManualError{Path: c.path, Reason: fmt.Sprintf("with the entry added %v", err), Entry: c.entry}
}

// restartCommand returns what restarts the containerd that reads the file at path.
// k3s and RKE2 run a containerd of their own inside their service.
func restartCommand(path string) string {
	for _, name := range []string{"k3s", "rke2"} {
		if strings.Contains(path, "/"+name+"/") {
			return "systemctl restart " + name + " (on an agent: " + name + "-agent)"
		}
	}
	return "systemctl restart containerd"
}

func (o Options) binaryPath() string { return filepath.Join(o.BinDir, BinaryName) }

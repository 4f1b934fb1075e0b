package install

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"time"
)

// containerd is the containerd that reads the configuration. Its major version is 0 if it
// is not known; its path is empty if no binary of that version was found.
type containerd struct {
	path    string
	version string
	major   int
}

// findContainerd finds the node's containerd. It fails only for a binary that was named and
// cannot be used.
func findContainerd(ctx context.Context, o Options) (containerd, error) {
	var c containerd
	path := o.Containerd
	if path == "" {
		path = onPath("containerd")
	}
	if path != "" {
		version, err := binaryVersion(ctx, path)
		switch {
		case err == nil:
			c = containerd{path: path, version: version}
		case o.Containerd != "":
			return c, err
		}
	}
	if o.ContainerdVersion != "" {
		wanted, err := parseVersion(o.ContainerdVersion)
		if err != nil {
			return c, fmt.Errorf("--containerd-version: %w", err)
		}
		if c.version != wanted {
			c = containerd{version: wanted}
		}
	}
	if c.version != "" {
		c.major, _ = strconv.Atoi(c.version[:strings.IndexByte(c.version, '.')])
	}
	return c, nil
}

// onPath finds a program on PATH or where distributions put containerd.
func onPath(name string) string {
	for _, candidate := range []string{name, "/usr/local/bin/" + name, "/usr/bin/" + name} {
		if path, err := exec.LookPath(candidate); err == nil {
			return path
		}
	}
	return ""
}

// binaryVersion asks a containerd binary: "containerd MODULE v2.2.9 COMMIT".
func binaryVersion(ctx context.Context, path string) (string, error) {
	out, err := run(ctx, path, "--version")
	if err != nil {
		return "", fmt.Errorf("ask %s for its version: %w", path, err)
	}
	for _, word := range strings.Fields(string(out)) {
		if version, err := parseVersion(word); err == nil {
			return version, nil
		}
	}
	return "", fmt.Errorf("ask %s for its version: no version in %q; give --containerd-version", path, bytes.TrimSpace(out))
}

// parseVersion returns "v1.7.35" as "1.7.35".
func parseVersion(s string) (string, error) {
	version := strings.TrimPrefix(s, "v")
	parts := strings.Split(version, ".")
	if len(parts) < 2 {
		return "", fmt.Errorf("%q is no version such as 2.2.9", s)
	}
	for _, part := range parts[:2] {
		if _, err := strconv.ParseUint(part, 10, 16); err != nil {
			return "", fmt.Errorf("%q is no version such as 2.2.9", s)
		}
	}
	return version, nil
}

// dump returns the configuration as containerd understands it: all files merged,
// migrated, and filled with defaults. Without a file that is the default one;
// containerd 1.7 cannot dump a file that does not exist.
func (c containerd) dump(ctx context.Context, path string) (map[string]any, error) {
	args := []string{"--config", path, "config", "dump"}
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		args = []string{"config", "default"}
	}
	out, err := run(ctx, c.path, args...)
	if err != nil {
		return nil, err
	}
	return parse(out)
}

func run(ctx context.Context, path string, args ...string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, args...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err == nil {
		return out, nil
	}
	if text := lastLine(stderr.String()); text != "" {
		return nil, fmt.Errorf("%s: %s", strings.Join(append([]string{path}, args...), " "), text)
	}
	return nil, fmt.Errorf("%s: %w", strings.Join(append([]string{path}, args...), " "), err)
}

func lastLine(s string) string {
	s = strings.TrimSpace(s)
	return strings.TrimPrefix(s[strings.LastIndexByte(s, '\n')+1:], "containerd: ")
}

// errCRIDisabled means that containerd accepts the file but runs no CRI plugin.
var errCRIDisabled = errors.New("containerd's CRI plugin is disabled")

// compareDumps fails unless two dumps differ exactly in the runtime and the settings that the
// change adds or removes.
func compareDumps(before, after map[string]any, c change, nodeConfig string) error {
	old, now := without(before), without(after)
	if c.localPull || c.hadLocalPull {
		old, now = withoutPull(old), withoutPull(now)
	}
	old, now = removeKey(old, "imports"), removeKey(now, "imports")
	if d := difference(prune(old), prune(now)); d != "" {
		return fmt.Errorf("containerd would read %s differently", d)
	}
	entry := runtimeEntry(after)
	if !c.adds {
		if entry != nil {
			return fmt.Errorf("containerd still reads a runtime %q", Handler)
		}
		return nil
	}
	if criSection(after) == nil {
		return errCRIDisabled
	}
	if entry == nil {
		return fmt.Errorf("containerd reads no runtime %q", Handler)
	}
	if err := complete(entry, nodeConfig); err != nil {
		return fmt.Errorf("containerd reads another runtime %q: %w", Handler, err)
	}
	// 2.x splits the plugin: the settings are read though the service is disabled.
	disabled, _ := after["disabled_plugins"].([]any)
	if slices.Contains(disabled, any(pluginV2)) {
		return errCRIDisabled
	}
	if setting := pullSetting(after); c.localPull && (setting == nil || !*setting) {
		return fmt.Errorf("containerd does not read %s = true", localPullKey)
	}
	return nil
}

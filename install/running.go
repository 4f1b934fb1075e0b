package install

import (
	"encoding/json"
	"errors"
	"fmt"
)

// CheckRunning reports whether a containerd that runs has read our runtime as Install
// enters it. The configuration is the JSON document that CRI's Status gives, when
// asked to be verbose, under the key "config" (containerd's internal/cri/server/status.go).
// NodeConfig is Options.NodeConfig; empty means its default.
func CheckRunning(configuration []byte, nodeConfig string) error {
	tree, err := parseRunning(configuration)
	if err != nil {
		return err
	}
	entry, _ := table(tree, "containerd", "runtimes")[Handler].(map[string]any)
	if entry == nil {
		return fmt.Errorf("containerd offers no runtime %q", Handler)
	}
	// The same fields under the names that they have in a file.
	fields := map[string]any{
		"runtime_type":    entry["runtimeType"],
		"pod_annotations": entry["PodAnnotations"],
		"options":         entry["options"],
	}
	if err := complete(fields, Options{NodeConfig: nodeConfig}.withDefaults().NodeConfig); err != nil {
		return fmt.Errorf("containerd offers another runtime %q: %w", Handler, err)
	}
	return nil
}

// CompareRunning makes sure that two such documents differ in our runtime only.
func CompareRunning(before, after []byte) error {
	old, err := parseRunning(before)
	if err != nil {
		return err
	}
	now, err := parseRunning(after)
	if err != nil {
		return err
	}
	old = removeKey(old, "containerd", "runtimes", Handler)
	now = removeKey(now, "containerd", "runtimes", Handler)
	if d := difference(prune(old), prune(now)); d != "" {
		return fmt.Errorf("containerd reads %s differently", d)
	}
	return nil
}

func parseRunning(configuration []byte) (map[string]any, error) {
	tree := map[string]any{}
	if err := json.Unmarshal(configuration, &tree); err != nil {
		return nil, fmt.Errorf("containerd's own report of its configuration: %w", err)
	}
	if table(tree, "containerd") == nil {
		return nil, errors.New("containerd's own report of its configuration names no runtimes")
	}
	return tree, nil
}

// RunningConfigPath returns the ConfigPath that our runtime has in such a document, or
// "" when it has none.
func RunningConfigPath(configuration []byte) string {
	tree, err := parseRunning(configuration)
	if err != nil {
		return ""
	}
	path, _ := table(tree, "containerd", "runtimes", Handler, "options")["ConfigPath"].(string)
	return path
}

// RunningSystemdCgroup reports whether containerd's default runtime takes its cgroups from
// systemd. It is false, false when the document does not tell.
func RunningSystemdCgroup(configuration []byte) (systemd, told bool) {
	tree, err := parseRunning(configuration)
	if err != nil {
		return false, false
	}
	name, _ := table(tree, "containerd")["defaultRuntimeName"].(string)
	if name == "" {
		name = "runc"
	}
	runtime := table(tree, "containerd", "runtimes", name)
	if runtime == nil || name == Handler {
		return false, false
	}
	systemd, _ = table(runtime, "options")["SystemdCgroup"].(bool)
	return systemd, true
}

package install

import (
	"fmt"
	"reflect"
	"strconv"
	"strings"

	"github.com/pelletier/go-toml/v2"
)

// The names of the runtime: the handler of a RuntimeClass, and the type that
// containerd turns into the name of the binary.
const (
	Handler     = "wasm"
	RuntimeType = "io.containerd.wasm.v1"
)

// podAnnotations are the patterns of pod annotations that containerd passes on to
// the shim; it drops all others.
var podAnnotations = []string{"wasm.shim/*", "module.wasm.image/*", "run.oci.handler"}

// The table of containerd's CRI plugin, whose name depends on the version that a
// configuration file declares.
const (
	pluginV1 = "cri"                          // version 1, or none
	pluginV2 = "io.containerd.grpc.v1.cri"    // version 2
	pluginV3 = "io.containerd.cri.v1.runtime" // version 3 and 4
)

var plugins = []string{pluginV1, pluginV2, pluginV3}

// renderEntry returns the runtime's tables. The shim's configuration goes by path:
// for a runtime that is not runc, CRI turns ConfigPath into a
// runtimeoptions.v1.Options and drops every other option once a path is set.
func renderEntry(plugin, nodeConfig string) string {
	table := fmt.Sprintf("plugins.%q.containerd.runtimes.%s", plugin, Handler)
	var b strings.Builder
	fmt.Fprintf(&b, "[%s]\n", table)
	fmt.Fprintf(&b, "  runtime_type = %q\n", RuntimeType)
	fmt.Fprintf(&b, "  pod_annotations = [\"%s\"]\n", strings.Join(podAnnotations, `", "`))
	fmt.Fprintf(&b, "  [%s.options]\n", table)
	fmt.Fprintf(&b, "    ConfigPath = %s\n", quote(nodeConfig))
	return b.String()
}

// renderDefaultRunc returns the runc runtime as containerd 1.7 has it when a file
// names no runtime at all. Once a file names one, 1.7 forgets its own: the decoder
// replaces the map of runtimes, and CRI does not start without its default.
func renderDefaultRunc(plugin string) string {
	table := fmt.Sprintf("plugins.%q.containerd.runtimes.runc", plugin)
	return fmt.Sprintf(`# containerd 1.x drops its built-in runc once a runtime is configured: the same again.
[%[1]s]
  runtime_type = "io.containerd.runc.v2"
  sandbox_mode = "podsandbox"
  [%[1]s.options]
    BinaryName = ""
    CriuImagePath = ""
    CriuPath = ""
    CriuWorkPath = ""
    IoGid = 0
    IoUid = 0
    NoNewKeyring = false
    NoPivotRoot = false
    Root = ""
    ShimCgroup = ""
    SystemdCgroup = false
`, table)
}

// quote returns s as a TOML string. Go's escapes are not all TOML's, so where one
// would be needed the encoder does it.
func quote(s string) string {
	if quoted := strconv.Quote(s); !strings.Contains(quoted, `\`) {
		return quoted
	}
	text, err := toml.Marshal(map[string]string{"s": s})
	if err != nil {
		return strconv.Quote(s)
	}
	return strings.TrimSpace(strings.TrimPrefix(string(text), "s = "))
}

// parse decodes a TOML document into plain maps.
func parse(text []byte) (map[string]any, error) {
	tree := map[string]any{}
	if err := toml.Unmarshal(text, &tree); err != nil {
		return nil, explain(err)
	}
	return tree, nil
}

func explain(err error) error {
	bad, ok := err.(*toml.DecodeError)
	if !ok {
		return fmt.Errorf("not TOML: %w", err)
	}
	line, _ := bad.Position()
	return fmt.Errorf("not TOML: line %d: %s", line, strings.TrimPrefix(bad.Error(), "toml: "))
}

// table returns the table at the path of keys, or nil.
func table(tree map[string]any, keys ...string) map[string]any {
	for _, key := range keys {
		next, ok := tree[key].(map[string]any)
		if !ok {
			return nil
		}
		tree = next
	}
	return tree
}

// criSection returns the CRI plugin's table under whatever name, or nil.
func criSection(tree map[string]any) map[string]any {
	for _, plugin := range plugins {
		if section := table(tree, "plugins", plugin); section != nil {
			return section
		}
	}
	return nil
}

// runtimeEntry returns the entry of our handler in a file, or nil.
func runtimeEntry(tree map[string]any) any {
	for _, plugin := range plugins {
		if entry, ok := table(tree, "plugins", plugin, "containerd", "runtimes")[Handler]; ok {
			return entry
		}
	}
	return nil
}

// complete reports whether an entry that somebody else wrote, or that containerd
// prints, makes the shim work: our type, all our annotations, our ConfigPath.
func complete(entry any, nodeConfig string) error {
	fields, _ := entry.(map[string]any)
	if fields["runtime_type"] != RuntimeType {
		return fmt.Errorf("its runtime_type is %q, not %q", fmt.Sprint(fields["runtime_type"]), RuntimeType)
	}
	have := map[any]bool{}
	list, _ := fields["pod_annotations"].([]any)
	for _, pattern := range list {
		have[pattern] = true
	}
	for _, pattern := range podAnnotations {
		if !have[pattern] {
			return fmt.Errorf("its pod_annotations lack %q", pattern)
		}
	}
	if path := table(fields, "options")["ConfigPath"]; path != nodeConfig {
		return fmt.Errorf("its ConfigPath is %q, not %q", fmt.Sprint(path), nodeConfig)
	}
	return nil
}

// without returns a copy of the tree that lacks our entry, and lacks the tables
// above it that hold nothing else.
func without(tree map[string]any) map[string]any {
	for _, plugin := range plugins {
		tree = removeKey(tree, "plugins", plugin, "containerd", "runtimes", Handler)
	}
	return tree
}

func removeKey(tree map[string]any, keys ...string) map[string]any {
	child, ok := tree[keys[0]]
	if !ok {
		return tree
	}
	out := make(map[string]any, len(tree))
	for key, value := range tree {
		out[key] = value
	}
	if len(keys) == 1 {
		delete(out, keys[0])
		return out
	}
	below, ok := child.(map[string]any)
	if !ok {
		return tree
	}
	out[keys[0]] = removeKey(below, keys[1:]...)
	return out
}

// prune drops tables that hold nothing, all the way up: a header alone, such as
// [plugins], says nothing to containerd, and appending a block makes such headers.
func prune(tree map[string]any) map[string]any {
	out := make(map[string]any, len(tree))
	for key, value := range tree {
		if below, ok := value.(map[string]any); ok {
			if below = prune(below); len(below) == 0 {
				continue
			}
			value = below
		}
		out[key] = value
	}
	return out
}

// difference returns the path of the first value that differs, or "".
func difference(a, b map[string]any) string {
	for _, pair := range [][2]map[string]any{{a, b}, {b, a}} {
		for key, x := range pair[0] {
			y, ok := pair[1][key]
			if ok && reflect.DeepEqual(x, y) {
				continue
			}
			below, ok1 := x.(map[string]any)
			other, ok2 := y.(map[string]any)
			if ok1 && ok2 {
				return key + "." + difference(below, other)
			}
			return key
		}
	}
	return ""
}

package install

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
)

// The image service of containerd's CRI. Files of every version that 2.x reads know
// it by this name.
const (
	imagesPlugin = "io.containerd.cri.v1.images"
	localPullKey = "use_local_image_pull"
)

// verifierPlugin is the plugin that asks the operator's own programs whether an image may be pulled.
const verifierPlugin = "io.containerd.image-verifier.v1.bindir"

// DefaultVerifiers is where that plugin looks for them.
const DefaultVerifiers = "/opt/containerd/image-verifier/bin"

// renderLocalPull returns the setting that makes CRI pull images as containerd 1.7
// did. The transfer service, which it uses otherwise, unpacks images of every
// platform up to 2.2, and of linux only from 2.3 on (its plugins/transfer/plugin.go:
// platforms.OnlyOS); CRI then has no snapshot to start a wasi/wasm image from. Its
// own unpack_config changes nothing of that, because CRI asks it for the platform of
// the node, and the runtime_platforms of CRI only choose a snapshotter.
func renderLocalPull() string {
	return fmt.Sprintf("# From 2.3 on containerd unpacks images of other platforms than linux, such as wasi/wasm,\n"+
		"# only where CRI pulls them itself.\n[plugins.%q]\n  %s = true\n", imagesPlugin, localPullKey)
}

// atLeast reports whether containerd is known to be of that version or a later one.
func (c containerd) atLeast(major, minor int) bool {
	parts := strings.SplitN(c.version, ".", 3)
	if len(parts) < 2 {
		return false
	}
	have, err := strconv.Atoi(parts[1])
	return err == nil && (c.major > major || c.major == major && have >= minor)
}

// pullSetting returns a file's setting for local pulls, or nil if it has none.
func pullSetting(tree map[string]any) *bool {
	value, ok := table(tree, "plugins", imagesPlugin)[localPullKey].(bool)
	if !ok {
		return nil
	}
	return &value
}

// localPull reports whether our block at the target has to make CRI pull images itself.
// Where it would have to and must not, the node gets a note for its operator.
func (n *node) localPull(t target) bool {
	if !n.containerd.atLeast(2, 3) {
		return false
	}
	for i, f := range n.files {
		setting := pullSetting(f.tree)
		switch {
		case setting == nil:
		case *setting:
			return false
		case f.path == t.path || i > 0:
			// A drop-in of ours overrides the main file, which often holds all the
			// defaults, but not what somebody has put into another drop-in.
			n.notePull(fmt.Sprintf("%s says %s = false", f.path, localPullKey))
			return false
		}
	}
	if dir := n.verifiers(); dir != "" {
		n.notePull(fmt.Sprintf("the image verifiers in %s are not asked when CRI pulls images itself", dir))
		return false
	}
	return true
}

// notePull adds a note for the operator that some images will not run on this node, and why.
func (n *node) notePull(reason string) {
	note := fmt.Sprintf("note: pods cannot run images of platform wasi/wasm, wasip1/wasm or wasip2/wasm with layers of files: containerd %s "+
		"unpacks those only with %s = true in [plugins.%q], and %s", n.containerd.version, localPullKey, imagesPlugin, reason)
	if !slices.Contains(n.notes, note) {
		n.notes = append(n.notes, note)
	}
}

// verifiers returns the folder whose programs containerd asks before it pulls an
// image, or "" when there are none. It asks them in the transfer service only.
func (n *node) verifiers() string {
	dir := n.options.Verifiers
	for _, f := range n.files {
		if disabled, _ := f.tree["disabled_plugins"].([]any); slices.Contains(disabled, any(verifierPlugin)) {
			return ""
		}
		if named, ok := table(f.tree, "plugins", verifierPlugin)["bin_dir"].(string); ok {
			dir = named
		}
	}
	return withPrograms(dir)
}

// withPrograms returns the folder if there is anything in it.
func withPrograms(dir string) string {
	programs, err := os.ReadDir(dir)
	if err != nil || len(programs) == 0 {
		return ""
	}
	return dir
}

// hasLocalPull reports whether the block makes CRI pull images itself. There may be none.
func (b *block) hasLocalPull() bool {
	if b == nil {
		return false
	}
	tree, err := parse([]byte(b.body))
	if err != nil {
		return false
	}
	setting := pullSetting(tree)
	return setting != nil && *setting
}

// withoutPull returns a copy of the tree that says nothing about local pulls.
func withoutPull(tree map[string]any) map[string]any {
	return removeKey(tree, "plugins", imagesPlugin, localPullKey)
}

// checkPull notes which setting for pulls is missing beside an entry that install did not write.
func (n *node) checkPull() {
	if n.localPull(target{}) {
		n.notePull("no file has that setting: add it by hand")
	}
}

// Pulls is how CRI pulls images.
type Pulls struct {
	// Local says that it does so by itself, which it must from 2.3 on to unpack
	// every platform.
	Local bool
	// Verifiers is the folder of image verifiers, which are then not asked; empty if
	// there are none.
	Verifiers string
}

// AskPulls asks a containerd binary how it would pull with the configuration file at path.
func AskPulls(ctx context.Context, binary, path string) (Pulls, error) {
	tree, err := containerd{path: binary}.dump(ctx, path)
	if err != nil {
		return Pulls{}, err
	}
	setting := pullSetting(tree)
	dir, _ := table(tree, "plugins", verifierPlugin)["bin_dir"].(string)
	return Pulls{Local: setting != nil && *setting, Verifiers: withPrograms(dir)}, nil
}

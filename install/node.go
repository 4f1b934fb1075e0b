package install

import (
	"context"
	"errors"
	"fmt"
	"slices"
)

// node is the result of an inspection: the containerd, and its configuration files in
// the order in which it merges them.
type node struct {
	options    Options
	containerd containerd
	files      []*configFile
	entryPath  string // where the runtime is configured already, after planInstall
	notes      []string
}

func inspect(ctx context.Context, o Options) (*node, error) {
	n := &node{options: o}
	var err error
	if n.containerd, err = findContainerd(ctx, o); err != nil {
		return nil, err
	}
	n.files, err = loadFiles(o.Config)
	if manual := (*ManualError)(nil); errors.As(err, &manual) {
		plugin := pluginV3
		if n.containerd.major == 1 {
			plugin = pluginV2
		}
		manual.Entry = renderEntry(plugin, o.NodeConfig)
		if n.containerd.atLeast(2, 3) {
			manual.Entry += renderLocalPull()
		}
	}
	return n, err
}

// target is the place for the runtime's entry.
type target struct {
	path     string
	file     *configFile // nil: a new file
	version  int         // that a new file declares
	plugin   string      // name of the CRI plugin there
	withRunc bool        // the entry must repeat containerd's built-in runc
}

// target decides where the entry goes.
//
// containerd 1.x replaces a whole plugin section by the one of a file that it reads
// later, so a drop-in would take away everything else that the operator has set
// there: the entry goes to the file whose section counts. containerd 2.x merges
// sections key by key, so a drop-in is safe, if it declares the version of the main
// file: 2.2 migrates only once, after merging, by the version that it read last.
// See RATIONALE.md, "When does install write a drop-in?"
func (n *node) target() (target, error) {
	if len(n.files) == 0 {
		return n.newMain()
	}
	main := n.files[0]
	if n.containerd.major == 1 && main.version() > 2 {
		return target{}, fmt.Errorf("%s declares version %d, which containerd %s cannot read",
			main.path, main.version(), n.containerd.version)
	}
	if n.containerd.major >= 2 || main.version() > 2 {
		return n.mergingTarget(main)
	}
	return n.replacingTarget(main), nil
}

// newMain is a main file where there was none. containerd behaves with a file that
// holds a version and the entry as it does without a file: it imports nothing, and
// what the file does not name keeps its default (for 1.x with runc repeated).
func (n *node) newMain() (target, error) {
	t := target{path: n.options.Config}
	switch n.containerd.major {
	case 0:
		return t, fmt.Errorf("cannot tell containerd's version: there is no %s and no containerd on PATH; "+
			"give --containerd or --containerd-version", t.path)
	case 1:
		t.version, t.plugin, t.withRunc = 2, pluginV2, true
	default:
		t.version, t.plugin = 3, pluginV3
	}
	return t, nil
}

// mergingTarget is the place for containerd 2.x.
func (n *node) mergingTarget(main *configFile) (target, error) {
	t := target{path: main.path, file: main, version: main.version(), plugin: pluginName(main.version())}
	if main.version() == 1 {
		// 2.x knows the new name in such a file too, but 2.2 ignores a section
		// with the old one, and 2.4 ignores its runtimes once the new one is there.
		t.plugin = pluginV3
		if slices.ContainsFunc(n.files, func(f *configFile) bool { return criSection(f.tree) != nil }) {
			return t, n.manual(t, "it declares no version or version 1, which releases of containerd 2 read differently: "+
				`replace it by what "containerd config migrate" prints first`)
		}
	}
	if f := n.ours(); f != nil {
		t.path, t.file = f.path, f
		return t, nil
	}
	if path := main.dropIn(); path != "" && main.version() > 1 {
		t.path, t.file = path, n.file(path)
		return t, nil
	}
	if main.generated() {
		return t, n.manual(t, "another program generates it and would remove the entry")
	}
	return t, nil
}

// replacingTarget is the place for containerd 1.x, and for a file of version 1 or 2
// that a containerd of unknown version reads: it is right for 2.x as well.
func (n *node) replacingTarget(main *configFile) target {
	version := 1
	for _, f := range n.files {
		if _, declared := f.tree["version"]; declared {
			version = f.version()
		}
	}
	t := target{path: main.path, file: main, plugin: pluginName(version)}
	for _, f := range n.files {
		if table(f.tree, "plugins", t.plugin) != nil {
			t.path, t.file = f.path, f
		}
	}
	t.withRunc = table(t.file.tree, "plugins", t.plugin, "containerd", "runtimes") == nil
	return t
}

// ours returns the file that holds our block, or nil.
func (n *node) ours() *configFile {
	for _, f := range n.files {
		if f.block != nil {
			return f
		}
	}
	return nil
}

func (n *node) file(path string) *configFile {
	for _, f := range n.files {
		if f.path == path {
			return f
		}
	}
	return nil
}

// entry returns the text for a target: the runtime's, and what pulls need.
func (n *node) entry(t target) string {
	if n.localPull(t) {
		return n.runtimeEntry(t) + renderLocalPull()
	}
	return n.runtimeEntry(t)
}

func (n *node) runtimeEntry(t target) string {
	text := renderEntry(t.plugin, n.options.NodeConfig)
	if t.withRunc {
		text = renderDefaultRunc(t.plugin) + text
	}
	return text
}

func (n *node) manual(t target, reason string) error {
	return &ManualError{Path: t.path, Reason: reason, Entry: n.entry(t)}
}

// header begins a file that install creates. Uninstall removes the file if only this is
// left in it.
func header(version int) string {
	return fmt.Sprintf("# Created by \"%[1]s install\"; \"%[1]s uninstall\" removes it.\nversion = %[2]d\n", BinaryName, version)
}

// isHeader reports whether text is the content of a file of ours without the block.
func isHeader(text []byte) bool {
	for version := 1; version <= 4; version++ {
		if string(text) == header(version) {
			return true
		}
	}
	return false
}

// planInstall returns the change that adds the runtime; nil when it is there.
func (n *node) planInstall() (*change, error) {
	if done, err := n.foreignEntry(); done || err != nil {
		return nil, err
	}
	current, err := n.singleBlock()
	if err != nil {
		return nil, err
	}
	if current != nil && current.block.edited {
		return nil, n.acceptEdited(current)
	}
	t, err := n.target()
	if err != nil {
		return nil, err
	}
	if current != nil && current != t.file {
		return nil, fmt.Errorf("%s holds the runtime %q, but containerd now takes it from %s; run uninstall, then install again",
			current.path, Handler, t.path)
	}
	c, body, err := n.planBlock(t)
	if err != nil {
		return nil, err
	}
	if current != nil && current.block.body == body {
		n.entryPath = current.path
		return nil, nil
	}
	return c, nil
}

// planBlock returns the change that gives the target its block, and the block's text.
// Where the file has no room for what pulls need, the runtime still has.
func (n *node) planBlock(t target) (*change, string, error) {
	runtime, body := n.runtimeEntry(t), n.entry(t)
	c := &change{path: t.path, adds: true, localPull: body != runtime, entry: body}
	base := []byte(header(t.version))
	if t.file != nil {
		c.before, base = t.file.raw, t.file.text
		c.hadLocalPull = t.file.block.hasLocalPull()
	}
	var err error
	if c.after, err = withBody(base, body); err != nil && c.localPull {
		n.notePull(fmt.Sprintf("that table of %s has no room for it: set it there by hand", t.path))
		c.localPull, body = false, runtime
		c.after, err = withBody(base, body)
	}
	if err != nil {
		return nil, "", n.manual(t, err.Error())
	}
	return c, body, nil
}

func withBody(base []byte, body string) ([]byte, error) {
	added, err := parse([]byte(body))
	if err != nil {
		return nil, fmt.Errorf("the runtime's entry: %w", err)
	}
	return withBlock(base, body, added)
}

// foreignEntry deals with a runtime of our name that we did not write: one that
// does what ours would counts as installed, any other is the operator's.
func (n *node) foreignEntry() (bool, error) {
	for _, f := range n.files {
		entry := runtimeEntry(f.tree)
		if entry == nil {
			continue
		}
		if err := complete(entry, n.options.NodeConfig); err != nil {
			return false, fmt.Errorf("%s has a runtime %q already, and %w; it was left alone: rename or remove it, then install again",
				f.path, Handler, err)
		}
		n.entryPath = f.path
		n.checkPull()
		return true, nil
	}
	return false, nil
}

// singleBlock returns the file with our block, nil when none has one.
func (n *node) singleBlock() (*configFile, error) {
	var found *configFile
	for _, f := range n.files {
		if f.block == nil {
			continue
		}
		if found != nil {
			return nil, fmt.Errorf("both %s and %s hold a block of containerd-shim-wasm; run uninstall, then install again",
				found.path, f.path)
		}
		found = f
	}
	return found, nil
}

// acceptEdited leaves an edited block alone if it still works.
func (n *node) acceptEdited(f *configFile) error {
	tree, err := parse([]byte(f.block.body))
	if err == nil {
		err = complete(runtimeEntry(tree), n.options.NodeConfig)
	}
	if err != nil {
		return fmt.Errorf("%s: the block of containerd-shim-wasm was edited by hand, and %w; it was left alone: "+
			"correct or remove it, then install again", f.path, err)
	}
	n.entryPath = f.path
	if !f.block.hasLocalPull() {
		n.checkPull()
	}
	return nil
}

// systemdCgroup reports whether containerd's default runtime takes its cgroups from
// systemd, which our containers must do then too.
func (n *node) systemdCgroup() bool {
	systemd := false
	for _, f := range n.files {
		section := criSection(f.tree)
		if section == nil {
			continue
		}
		if n.containerd.major < 2 && n.files[0].version() < 3 {
			systemd = false // 1.x forgets what an earlier file said
		}
		name, _ := table(section, "containerd")["default_runtime_name"].(string)
		if name == "" {
			name = "runc"
		}
		if v, ok := table(section, "containerd", "runtimes", name, "options")["SystemdCgroup"].(bool); ok {
			systemd = v
		}
	}
	return systemd
}

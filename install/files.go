package install

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// configFile is one file of containerd's configuration. The text and tree are
// without our block, which is kept aside.
type configFile struct {
	path  string
	raw   []byte         // as on disk
	text  []byte         // without our block
	tree  map[string]any // of text
	block *block         // ours, or nil
}

// version returns the version that the file declares; none counts as 1.
func (f *configFile) version() int {
	v, _ := f.tree["version"].(int64)
	return max(int(v), 1)
}

// plugin returns the name of the CRI plugin in a file of this version.
func pluginName(version int) string {
	switch version {
	case 1:
		return pluginV1
	case 2:
		return pluginV2
	}
	return pluginV3
}

// loadFiles reads the file at path and what it imports, breadth first, which is the
// order in which containerd merges them (LoadConfig in its server/config). No file
// at path gives no files.
func loadFiles(path string) ([]*configFile, error) {
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var files []*configFile
	seen := map[string]bool{}
	for pending := []string{path}; len(pending) > 0; {
		next := pending[0]
		pending = pending[1:]
		if seen[next] {
			continue
		}
		seen[next] = true
		f, err := loadFile(next)
		if err != nil {
			return files, err
		}
		files = append(files, f)
		imports, err := f.imports()
		if err != nil {
			return files, err
		}
		pending = append(pending, imports...)
	}
	return files, nil
}

func loadFile(path string) (*configFile, error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read containerd's configuration: %w", err)
	}
	return newConfigFile(path, raw)
}

func newConfigFile(path string, raw []byte) (*configFile, error) {
	f := &configFile{path: path, raw: raw, text: raw}
	var err error
	if f.block, err = findBlock(raw); err != nil {
		return nil, &ManualError{Path: path, Reason: err.Error()}
	}
	if f.block != nil {
		f.text = f.block.cut(raw)
	}
	if f.tree, err = parse(f.text); err != nil {
		reason := err.Error()
		if bytes.Contains(raw, []byte("{{")) {
			reason = "it is a template, not TOML"
		}
		return nil, &ManualError{Path: path, Reason: reason}
	}
	return f, nil
}

// patterns returns the import patterns of the file as absolute paths.
func (f *configFile) patterns() []string {
	list, _ := f.tree["imports"].([]any)
	var out []string
	for _, item := range list {
		pattern, ok := item.(string)
		if !ok {
			continue
		}
		pattern = filepath.Clean(pattern)
		if !filepath.IsAbs(pattern) {
			pattern = filepath.Join(filepath.Dir(f.path), pattern)
		}
		out = append(out, pattern)
	}
	return out
}

// imports returns the files that containerd reads after this one.
func (f *configFile) imports() ([]string, error) {
	var out []string
	for _, pattern := range f.patterns() {
		if !strings.Contains(pattern, "*") {
			out = append(out, pattern)
			continue
		}
		matches, err := filepath.Glob(pattern)
		if err != nil {
			return nil, fmt.Errorf("%s: import %q: %w", f.path, pattern, err)
		}
		out = append(out, matches...)
	}
	return out, nil
}

// dropInName is the name of our file in a folder that the configuration imports.
const dropInName = "containerd-shim-wasm.toml"

// dropIn returns the path of a new file that the file's imports would match, or "".
func (f *configFile) dropIn() string {
	for _, pattern := range f.patterns() {
		dir := filepath.Dir(pattern)
		if strings.ContainsAny(dir, `*?[\`) || !strings.Contains(pattern, "*") {
			continue
		}
		path := filepath.Join(dir, dropInName)
		if ok, err := filepath.Match(pattern, path); err == nil && ok {
			return path
		}
	}
	return ""
}

// generated reports whether some other program writes the file anew, which would take
// our block away; k3s and RKE2 do so at every start.
func (f *configFile) generated() bool {
	head := f.text[:min(len(f.text), 512)]
	return bytes.Contains(bytes.ToUpper(head), []byte("DO NOT EDIT"))
}

// Package entrypoint parses the first word of a container's command: a file, a function of the module in it,
// and the paths at which an exec looks for the file. The shim and "image inspect" share it. It opens no file,
// and depends only on the package that reads an environment.
package entrypoint

import (
	"path"
	"path/filepath"
	"strings"

	"github.com/wasmshim/containerd-shim-wasm/internal/environ"
)

// Suffix is the end of the name of a file that is meant to be WebAssembly.
const Suffix = ".wasm"

// Start is the function of an entry point that names none. In a component it stands for wasi:cli/run.
const Start = "_start"

// maxPath is the longest path in bytes that the kernel takes (PATH_MAX of limits.h).
const maxPath = 4096

// Point is an entry point: the file and the function that the first word of a command names.
type Point struct {
	File     string
	Function string // [Start] unless the word names another one
}

// Parse splits "module.wasm#function". For a component the word may be "component.wasm#interface#function". A
// # elsewhere belongs to the file's name.
func Parse(word string) Point {
	if i := strings.LastIndex(word, Suffix+"#"); i >= 0 {
		file := word[:i+len(Suffix)]
		return Point{File: file, Function: word[len(file)+1:]}
	}
	return Point{File: word, Function: Start}
}

// IsWasm reports whether the name alone marks the file as WebAssembly.
func (p Point) IsWasm() bool { return strings.HasSuffix(p.File, Suffix) }

// IsRoot reports whether the file is "/", which manifests for other Wasm runtimes give as the command of an
// image that knows its own module. No program can have that name.
func (p Point) IsRoot() bool { return p.File != "" && strings.Trim(p.File, "/") == "" }

// Paths returns the absolute paths at which an exec in folder cwd, with the given environment, looks for the
// file, in this order: the file itself if its name holds a slash, else that name in each folder of PATH
// (execvp(3)). It returns none for "/".
func (p Point) Paths(cwd string, env []string) []string {
	switch {
	case p.File == "", p.IsRoot():
		return nil
	case strings.Contains(p.File, "/"):
		return []string{absolute(p.File, cwd)}
	}
	if len(p.File)+len(cwd) > maxPath {
		return nil // the kernel would refuse every path
	}
	var paths []string
	folders := filepath.SplitList(searchPath(env))
	for _, folder := range folders[:min(len(folders), maxFolders)] {
		if len(folder) <= maxPath {
			paths = append(paths, path.Join(absolute(folder, cwd), p.File))
		}
	}
	return paths
}

// Local returns the absolute path of a bare name that IsWasm in folder cwd, where runwasi looks last, "" for
// other names. An exec does not look there: anyone who can write to cwd could replace another's program. So
// it counts only if the name names no other file and no layer of the image.
func (p Point) Local(cwd string) string {
	if !p.IsWasm() || strings.Contains(p.File, "/") {
		return ""
	}
	return path.Join("/", cwd, p.File)
}

// maxFolders bounds the folders of PATH that count: the author of a pod chooses PATH, and the daemon searches
// it.
const maxFolders = 1000

func absolute(name, cwd string) string {
	if path.IsAbs(name) {
		return path.Clean(name)
	}
	return path.Join("/", cwd, name)
}

// searchPath returns PATH, or the folders in which an exec looks without it.
func searchPath(env []string) string {
	if search, ok := environ.Lookup(env, "PATH"); ok {
		return search
	}
	return "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
}

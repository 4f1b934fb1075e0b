// Package entrypoint reads what a container's command names: a file, a function of the module in it, and the
// paths at which an exec looks for the file. It is what the shim and "image inspect" have in common,
// opens nothing, and depends on nothing.
package entrypoint

import (
	"path"
	"path/filepath"
	"strings"
)

// Suffix is how the name of a file ends that is meant to be WebAssembly.
const Suffix = ".wasm"

// Start is the function that a module's entry point stands for when it names none. In a component it
// stands for wasi:cli/run.
const Start = "_start"

// maxPath is the most bytes of a path that the kernel takes (PATH_MAX of limits.h).
const maxPath = 4096

// Point is what the first word of a command names.
type Point struct {
	File     string
	Function string // [Start] unless the word names another one
}

// Parse splits "module.wasm#function". That of a component may be "component.wasm#interface#function".
// A # elsewhere belongs to the file's name.
func Parse(word string) Point {
	if i := strings.LastIndex(word, Suffix+"#"); i >= 0 {
		file := word[:i+len(Suffix)]
		return Point{File: file, Function: word[len(file)+1:]}
	}
	return Point{File: word, Function: Start}
}

// IsWasm reports whether the name alone says that the file is meant to be WebAssembly.
func (p Point) IsWasm() bool { return strings.HasSuffix(p.File, Suffix) }

// IsRoot reports whether the file is "/", which manifests for other Wasm runtimes give as the command of an
// image that knows its own module. No program can have that name.
func (p Point) IsRoot() bool { return p.File != "" && strings.Trim(p.File, "/") == "" }

// Paths returns the absolute paths at which an exec in folder cwd, with the given environment, looks for
// the file, in this order: the file itself if its name holds a slash, else that name in each folder of
// PATH (execvp(3)). There is none for "/".
func (p Point) Paths(cwd string, env []string) []string {
	switch {
	case p.File == "", p.IsRoot():
		return nil
	case strings.Contains(p.File, "/"):
		return []string{absolute(p.File, cwd)}
	}
	if len(p.File)+len(cwd) > maxPath {
		return nil // the kernel would not look at any
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
// other names. An exec does not look there: whoever can write to cwd could put a program in the place of
// another one's. So it counts only where the name is that of nothing else, no layer of the image either.
func (p Point) Local(cwd string) string {
	if !p.IsWasm() || strings.Contains(p.File, "/") {
		return ""
	}
	return path.Join("/", cwd, p.File)
}

// maxFolders is how many folders of PATH count: whoever writes a pod chooses it, and the daemon looks.
const maxFolders = 1000

func absolute(name, cwd string) string {
	if path.IsAbs(name) {
		return path.Clean(name)
	}
	return path.Join("/", cwd, name)
}

// searchPath returns PATH, of several the last, which is the one that runc leaves a process.
func searchPath(env []string) string {
	search := "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
	for _, variable := range env {
		if value, ok := strings.CutPrefix(variable, "PATH="); ok {
			search = value
		}
	}
	return search
}

package inspect

import (
	"slices"
	"strings"
)

// tree is a file, or a folder and everything below it. To find or remove a path takes time proportional to
// its length, however large the tree is.
type tree struct {
	file  *file // nil for a folder
	below map[string]*tree
}

// steps returns the names on an absolute path without "." and "..".
func steps(at string) []string {
	if at == "/" {
		return nil
	}
	return strings.Split(at[1:], "/")
}

// at returns the file or folder at a path, without following links, or nil.
func (t *tree) at(path string) *tree {
	for _, name := range steps(path) {
		if t = t.below[name]; t == nil {
			return nil
		}
	}
	return t
}

// put places a file, or a folder if f is nil, at a path, and returns how many entries that made. A folder
// keeps the content of an existing folder; everything else replaces the existing entry.
func (t *tree) put(path string, f *file) (made int) {
	for _, name := range steps(path) {
		t.file = nil // a folder now
		if t.below == nil {
			t.below = map[string]*tree{}
		}
		next := t.below[name]
		if next == nil {
			next = &tree{}
			t.below[name] = next
			made++
		}
		t = next
	}
	t.file = f
	if f != nil {
		t.below = nil
	}
	return made
}

// remove removes the entry at a path.
func (t *tree) remove(path string) {
	all := steps(path)
	if len(all) == 0 {
		t.empty()
		return
	}
	for _, name := range all[:len(all)-1] {
		if t = t.below[name]; t == nil {
			return
		}
	}
	delete(t.below, all[len(all)-1])
}

// empty removes the content of a folder.
func (t *tree) empty() {
	if t != nil {
		t.below = nil
	}
}

// files calls visit for the path of every file.
func (t *tree) files(at string, visit func(at string, f *file)) {
	if t.file != nil {
		visit(at, t.file)
	}
	for name, next := range t.below {
		next.files(at+"/"+name, visit)
	}
}

// follow resolves the first link on a path. It returns false if there is none.
func (t *tree) follow(path string) (string, bool) {
	end := 0
	for _, name := range steps(path) {
		above := path[:end]
		end += len("/" + name)
		if t = t.below[name]; t == nil {
			return "", false
		}
		if t.file == nil || t.file.target == "" {
			continue
		}
		if strings.HasPrefix(t.file.target, "/") {
			return clean(t.file.target + path[end:]), true
		}
		return clean(above + "/" + t.file.target + path[end:]), true
	}
	return "", false
}

// modules returns the paths of the files that are Wasm.
func (t *tree) modules() []string {
	var found []string
	t.files("", func(at string, f *file) {
		if f.isWasm() {
			found = append(found, at)
		}
	})
	slices.Sort(found)
	return found
}

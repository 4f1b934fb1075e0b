// Package world reads which world a WebAssembly component is made for: the names of what it imports
// and of what it exports, and which of them matter to a container. The format is that of
// https://github.com/WebAssembly/component-model/blob/main/design/mvp/Binary.md.
//
// It looks at the component itself, not at the components and modules in it, reads no types, and
// validates nothing else: the engine does. It never runs or compiles anything, and holds no more of
// a component in memory than those names.
package world

import (
	"slices"
	"strings"
)

// World is what a component imports and exports, in the binary's order.
type World struct{ Imports, Exports []Item }

// Item is something that is imported or exported.
type Item struct {
	Name string // as in wasi:cli/run@0.2.3, the name of an interface, or greet, that of a function
	Kind Kind
}

// Kind is what an item is. An interface is an Instance.
type Kind string

// The kinds of items (Binary.md, externtype).
const (
	CoreModule Kind = "core module"
	Function   Kind = "function"
	Value      Kind = "value"
	Type       Kind = "type"
	Component  Kind = "component"
	Instance   Kind = "instance"
)

// run is the interface that a command exports
// (https://github.com/WebAssembly/WASI/blob/main/wasip2/cli/run.wit).
const run = "wasi:cli/run"

// provided are the interfaces of the world of commands but those that WASI marks as unstable
// (https://github.com/WebAssembly/WASI/blob/main/wasip2/cli/command.wit).
var provided = map[string][]string{
	"wasi:cli": {"environment", "exit", "stdin", "stdout", "stderr",
		"terminal-input", "terminal-output", "terminal-stdin", "terminal-stdout", "terminal-stderr"},
	"wasi:clocks":     {"monotonic-clock", "wall-clock"},
	"wasi:filesystem": {"preopens", "types"},
	"wasi:io":         {"error", "poll", "streams"},
	"wasi:random":     {"random", "insecure", "insecure-seed"},
	"wasi:sockets":    {"instance-network", "ip-name-lookup", "network", "tcp", "tcp-create-socket", "udp", "udp-create-socket"},
}

// denied are the interfaces that some compilers have every component import, used or not: they are there,
// and what would reach beyond the container returns their own error for what is not allowed
// (https://github.com/WebAssembly/WASI/blob/main/wasip2/http/handler.wit).
var denied = map[string][]string{"wasi:http": {"types", "outgoing-handler"}}

// Missing returns the names of the imports that no container provides, in their order: all but the
// interfaces of the world wasi:cli/command and those for outgoing requests of wasi:http, which may be of
// any version 0.2.
func (w World) Missing() []string { return w.outside(provided, denied) }

// outside returns the names of the imports that are not among known interfaces.
func (w World) outside(known ...map[string][]string) []string {
	var names []string
	for _, i := range w.Imports {
		if i.Kind != Instance || !isOf(i.Name, known...) {
			names = append(names, i.Name)
		}
	}
	return names
}

// IsProvided reports whether every container provides the interface of that name.
func IsProvided(name string) bool { return isOf(name, provided, denied) }

func isOf(name string, known ...map[string][]string) bool {
	path, _, ok := version02(name)
	of, simple, _ := strings.Cut(path, "/")
	return ok && slices.ContainsFunc(known, func(interfaces map[string][]string) bool { return slices.Contains(interfaces[of], simple) })
}

// Command returns the name of the interface whose function run makes the component a command,
// such as wasi:cli/run@0.2.3, and "" if it exports none: then it is a library.
func (w World) Command() string {
	for _, e := range w.Exports {
		if path, _, ok := version02(e.Name); ok && path == run && e.Kind == Instance {
			return e.Name
		}
	}
	return ""
}

// Target returns the world of WASI that the component fits into, such as wasi:cli/command@0.2.3,
// and "" if it is none that we know. The binary does not tell which one its author had in mind.
func (w World) Target() string {
	_, version, ok := version02(w.Command())
	if !ok || len(w.outside(provided)) > 0 {
		return ""
	}
	return "wasi:cli/command@" + version
}

// Has says whether the component exports a name as an item of a kind.
func (w World) Has(name string, kind Kind) bool { return slices.Contains(w.Exports, Item{name, kind}) }

// Names returns the names of items.
func Names(items []Item) []string {
	names := make([]string, len(items))
	for i, item := range items {
		names[i] = item.Name
	}
	return names
}

// version02 splits the name of an interface of version 0.2.
func version02(name string) (path, version string, ok bool) {
	path, version, _ = strings.Cut(name, "@")
	patch, ok := strings.CutPrefix(version, "0.2.")
	return path, version, ok && patch != "" && strings.Trim(patch, "0123456789") == ""
}

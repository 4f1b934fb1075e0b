// Package world reads the world that a WebAssembly component is made for: the names of its imports and
// exports, and which of them matter to a container. The format is defined in
// https://github.com/WebAssembly/component-model/blob/main/design/mvp/Binary.md.
//
// It reads the component itself, not the components and modules in it. It reads no types and validates
// nothing else: the engine does that. It never runs or compiles anything, and holds only those names of a
// component in memory.
package world

import (
	"slices"
	"strings"
)

// World is the imports and exports of a component, in the binary's order.
type World struct{ Imports, Exports []Item }

// Item is an import or an export.
type Item struct {
	Name string // such as wasi:cli/run@0.2.3 for an interface, or greet for a function
	Kind Kind
}

// Kind is the kind of an item. An interface is an Instance.
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

// provided are the interfaces of the world of commands except those that WASI marks as unstable
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

// denied are interfaces that some compilers add to every component, used or not. They can be imported, but
// calls that would reach outside the container return the interface's own error for a denied request
// (https://github.com/WebAssembly/WASI/blob/main/wasip2/http/handler.wit).
var denied = map[string][]string{"wasi:http": {"types", "outgoing-handler"}}

// Missing returns the names of the imports that no container provides, in their order: all except the
// interfaces of the world wasi:cli/command and those for outgoing requests of wasi:http, in any version 0.2.
func (w World) Missing() []string { return w.outside(provided, denied) }

// outside returns the names of the imports that are not among the known interfaces.
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

// Command returns the name of the interface whose function run makes the component a command, such as
// wasi:cli/run@0.2.3, or "" if the component is a library.
func (w World) Command() string {
	for _, e := range w.Exports {
		if path, _, ok := version02(e.Name); ok && path == run && e.Kind == Instance {
			return e.Name
		}
	}
	return ""
}

// Target returns the world of WASI that the component fits into, such as wasi:cli/command@0.2.3, or "" if we
// know of none. The binary does not contain the world that its author built it for.
func (w World) Target() string {
	_, version, ok := version02(w.Command())
	if !ok || len(w.outside(provided)) > 0 {
		return ""
	}
	return "wasi:cli/command@" + version
}

// Has reports whether the component exports an item of that name and kind.
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

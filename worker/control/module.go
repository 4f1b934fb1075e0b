package control

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/wasmshim/containerd-shim-wasm/internal/text"
)

// Module is what the daemon needs to know of a compiled module.
type Module struct {
	// Name is what it was called when it was compiled, Tenant for whom that was; the daemon adds
	// both, for people and to divide the cache.
	Name   string `json:",omitempty"`
	Tenant string `json:",omitempty"`
	// Functions are the exported functions that take no arguments. That which runs a
	// command component is called "_start" here, too. There may be More.
	Functions []string
	More      bool `json:",omitempty"`
	// Component says that it is a component, not a core module.
	Component bool `json:",omitempty"`
	// Precompiled says that it was machine code already.
	Precompiled bool `json:",omitempty"`
}

// command is the function that runs a command.
const command = "_start"

// What is kept of a module's functions: more than people can look through, and little enough
// to be read at every start.
const (
	mostFunctions  = 256
	functionsBytes = 16 << 10
)

// SetFunctions takes the names of a module's functions, those first that containers call most, as far as
// there is room.
func (m *Module) SetFunctions(names []string) {
	m.Functions = nil
	if slices.Contains(names, command) {
		m.Functions = append(m.Functions, command)
	}
	room := functionsBytes
	for _, name := range names {
		if name == command {
			continue
		}
		if room -= len(name); room < 0 || len(m.Functions) == mostFunctions {
			m.More = true
			return
		}
		m.Functions = append(m.Functions, name)
	}
}

// Check fails unless the module may have the function that an order says is going to be called. Of one with
// More functions the worker finds out.
func (m Module) Check(order Compile) error {
	if order.Function == nil || m.More || slices.Contains(m.Functions, *order.Function) {
		return nil
	}
	kind, lacks := "module", "has no _start function"
	if m.Component {
		kind, lacks = "component", "does not export wasi:cli/run"
	}
	if *order.Function == command {
		return fmt.Errorf("%s %s %s: it is a library, not a command; name a function as %s#FUNCTION (functions without arguments: %s)", kind, order.Name, lacks, order.Name, m.callable())
	}
	return fmt.Errorf("%s %s exports no function %q without arguments (it has: %s)", kind, order.Name, text.Short(*order.Function, 120), m.callable())
}

// callable lists the functions for an error. Names may be empty, or hold anything.
func (m Module) callable() string {
	if len(m.Functions) == 0 {
		return "none"
	}
	var names []string
	for _, name := range m.Functions[:min(20, len(m.Functions))] {
		names = append(names, strconv.Quote(text.Short(name, 120)))
	}
	return strings.Join(names, ", ")
}

package control

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/wasmshim/containerd-shim-wasm/internal/text"
)

// Module is what the daemon needs to know of the module of some code.
type Module struct {
	// Name is the module's name when it was compiled, and Tenant the tenant that it was compiled for. The
	// daemon adds both, for users and to divide the cache.
	Name   string `json:",omitempty"`
	Tenant string `json:",omitempty"`
	// Functions are the exported functions that take no arguments. The function that runs a command component
	// is called "_start" here, too. If More is set, the module has others.
	Functions []string
	More      bool `json:",omitempty"`
	// Component is set for a component, and not for a core module.
	Component bool `json:",omitempty"`
	// Precompiled is set if the input was machine code already.
	Precompiled bool `json:",omitempty"`
}

// command is the function that runs a command.
const command = "_start"

// Limits of the names of functions that are kept: more than people can look through, and few enough to be
// read at every start.
const (
	mostFunctions  = 256
	functionsBytes = 16 << 10
)

// SetFunctions stores the names of a module's functions, up to the limits. The most common one, _start, comes
// first.
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

// Check fails unless the module may have the function that an order names. If the module has More functions,
// only the worker can find out.
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

// callable lists the functions for an error. Names may be empty and may contain any character.
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

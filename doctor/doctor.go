// Package doctor looks whether a node can run Wasm containers: the shim's binary, what
// the running containerd has read of its configuration, the kernel, the folders, and one
// container that is run to its end. It says of everything that is not right how to mend
// it.
//
// The package changes nothing on the node: it mends nothing itself, and of its container
// and the namespace of containerd around it nothing stays. It speaks gRPC, so the shim
// never imports it.
package doctor

import (
	"context"
	"os"
	"path/filepath"
)

// State is what a check came to.
type State string

// A warning is what some containers may miss; what is wrong keeps containers from
// running, or from being confined as they should.
const (
	OK      State = "ok"
	Warning State = "warning"
	Wrong   State = "wrong"
)

// Result is one row of the table.
type Result struct {
	Check string `json:"check"`
	State State  `json:"state"`
	Found string `json:"found"`
	Mend  string `json:"mend,omitempty"` // empty if and only if the state is OK
}

func ok(found string) Result               { return Result{State: OK, Found: found} }
func warn(found, mend string) Result       { return Result{State: Warning, Found: found, Mend: mend} }
func wrong(found, mend string) Result      { return Result{State: Wrong, Found: found, Mend: mend} }
func unknown(found, because string) Result { return warn("not known: "+found, because) }

// Options say where to look.
type Options struct {
	// Address is containerd's socket, a path.
	Address string
	// Root is put before the path of every file that is looked at. It is for tests;
	// empty means the node itself.
	Root string
	// NoTrial leaves out the container.
	NoTrial bool
}

// node is what the checks look at.
type node struct {
	options    Options
	containerd containerd
	kernel     kernel
}

// path is where a file of the node is.
func (n *node) path(name string) string { return filepath.Join(n.options.Root, name) }

func (n *node) read(name string) (string, error) {
	text, err := os.ReadFile(n.path(name))
	return string(text), err
}

// check is one question, with the name of its row.
type check struct {
	name string
	ask  func(context.Context, *node) Result
}

// checks are asked in this order, causes before their effects.
var checks = []check{
	{"containerd", checkContainerd},
	{"binary", checkBinary},
	{"runtime", checkRuntime},
	{"image pulls", checkPulls},
	{"shim's config", checkConfig},
	{"cgroups", checkCgroups},
	{"cgroup driver", checkDriver},
	{"system calls", checkSystemCalls},
	{"seccomp", checkSeccomp},
	{"landlock", checkLandlock},
	{"namespaces", checkNamespaces},
	{"overlayfs", checkOverlay},
	{"programs", checkPrograms},
	{"cache", checkCache},
	{"fuse", checkFUSE},
	{"test run", checkTrial},
	{"engine", checkEngine}, // which the test run has placed
}

// Run asks everything and returns the rows. It takes as long as the slowest answer,
// some seconds at the most, or until the context ends.
func Run(ctx context.Context, o Options) []Result {
	n := &node{options: o, kernel: running{}}
	n.containerd = askContainerd(ctx, o)
	return n.run(ctx)
}

func (n *node) run(ctx context.Context) []Result {
	var results []Result
	for _, c := range checks {
		if c.name == "test run" && n.options.NoTrial {
			continue
		}
		r := c.ask(ctx, n)
		r.Check = c.name
		results = append(results, r)
	}
	return results
}

// Healthy reports whether nothing is wrong. It ignores warnings.
func Healthy(results []Result) bool {
	for _, r := range results {
		if r.State == Wrong {
			return false
		}
	}
	return true
}

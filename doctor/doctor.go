// Package doctor checks whether a node can run Wasm containers: the shim's binary, the
// configuration that the running containerd has read, the kernel, the folders, and one
// container that it runs to its end. For each problem it says how to mend it.
//
// The package changes nothing on the node. It mends nothing, and it removes its container and
// the namespace of containerd around it. It speaks gRPC, so the shim never imports it.
package doctor

import (
	"context"
	"os"
	"path/filepath"
)

// State is the outcome of a check.
type State string

// Warning: some containers may miss something. Wrong: containers do not run, or are not
// confined as they should be.
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
	// Root is put before the path of every file that a check reads. It is for tests;
	// empty means the node itself.
	Root string
	// NoTrial leaves the test run of a container out.
	NoTrial bool
}

// node is the node as the checks see it.
type node struct {
	options    Options
	containerd containerd
	kernel     kernel
}

// path returns the path of a file of the node.
func (n *node) path(name string) string { return filepath.Join(n.options.Root, name) }

func (n *node) read(name string) (string, error) {
	text, err := os.ReadFile(n.path(name))
	return string(text), err
}

// check is one check, with the name of its row.
type check struct {
	name string
	ask  func(context.Context, *node) Result
}

// checks run in this order, causes before their effects.
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

// Run makes all checks and returns the rows. It takes as long as the slowest answer,
// some seconds at most, or until the context ends.
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

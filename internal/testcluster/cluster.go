// Package testcluster runs a whole Kubernetes cluster of one node for tests and the benchmark: etcd, API
// server, controller manager, scheduler, kubelet, containerd with our shim, an S3 server and Argo
// Workflows in two versions, all real and of pinned versions.
//
// The node has network, process, mount and host name namespaces of its own. Its /etc, /var, /run and
// /usr/local/bin are its own too, so every file has the same path as on any node. The only changes to the
// machine are a cgroup with the cluster's name and the files below .cache/cluster. When the node's first
// process dies, the kernel ends and removes all of the node. Up, Down and the tests may be different programs.
//
// There is no kube-proxy and no DNS. Pods reach the API server at its service address and the S3 server at its
// address; Services of their own do not work. Images are imported, never pulled. No shipped binary imports this
// package.
package testcluster

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/wasmshim/containerd-shim-wasm/internal/leaks"
)

// Options select what to bring up. The zero value is what tests use.
type Options struct {
	Containerd string // "1.7", "2.1", "2.2" or "2.4"; $CONTAINERD if empty, else that of the running cluster, else 2.2
	Shim       string // our shim; $CONTAINERD_SHIM_WASM if empty, else bin/containerd-shim-wasm-v1 in the tree
	NoArgo     bool   // leave Argo out

	// Requeue is the time after which Argo's controllers look at a workflow again; 0 means their default of ten
	// seconds. With a few seconds, on a busy machine, they now and then end wait containers whose program has
	// not yet begun to listen for signals (docs/argo.md, For operators).
	Requeue time.Duration

	// EventedPLEG lets the kubelet see the ends of containers by containerd's events, instead of looking for them once
	// a second. It counts for a kubelet that is started.
	EventedPLEG bool
}

// Cluster is a cluster that runs. All methods but those that end or start parts are safe for concurrent use.
type Cluster struct {
	layout
	state state
	mu    sync.Mutex // guards state.Parts
}

// state is what one program must know about the parts that another program started.
type state struct {
	Containerd string             `json:"containerd"` // version, as in Options
	Shim       string             `json:"shim"`
	Argo       []string           `json:"argo"`    // names of the tools, as in argo-4.0
	Requeue    string             `json:"requeue"` // as in Options
	Evented    bool               `json:"evented"` // EventedPLEG in Options
	Tools      map[string]tool    `json:"tools"`
	Holder     process            `json:"holder"`
	Parts      map[string]process `json:"parts"`
	Done       map[string]string  `json:"done"` // steps that need not be done again → what they were done with
}

type tool struct {
	Bin     string `json:"bin"`
	Version string `json:"version"`
}

// Open returns the cluster that runs; it fails when none does.
func Open() (*Cluster, error) {
	l, err := findLayout()
	if err != nil {
		return nil, err
	}
	c, err := load(l)
	if err != nil {
		return nil, err
	}
	if !c.state.Holder.alive() {
		return nil, errors.New("no cluster is up: make cluster")
	}
	return c, nil
}

// load reads the state; it is empty if no cluster was ever started.
func load(l layout) (*Cluster, error) {
	c := &Cluster{layout: l, state: state{Parts: map[string]process{}, Done: map[string]string{}}}
	text, err := os.ReadFile(l.stateFile())
	if errors.Is(err, fs.ErrNotExist) {
		return c, nil
	}
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(text, &c.state); err != nil {
		return nil, fmt.Errorf("read %s: %w", l.stateFile(), err)
	}
	return c, nil
}

func (c *Cluster) save() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.saveLocked()
}

func (c *Cluster) saveLocked() error {
	text, err := json.MarshalIndent(c.state, "", "\t")
	if err != nil {
		return err
	}
	partial := c.stateFile() + ".partial"
	if err := os.WriteFile(partial, text, 0o600); err != nil {
		return err
	}
	return os.Rename(partial, c.stateFile())
}

func (c *Cluster) process(part string) process {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.state.Parts[part]
}

func (c *Cluster) setProcess(part string, p process) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.state.Parts[part] = p
	return c.saveLocked()
}

// done reports whether a step was done, with the same input.
func (c *Cluster) done(step, with string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.state.Done[step] == with
}

func (c *Cluster) setDone(step, with string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.state.Done[step] = with
	return c.saveLocked()
}

// tool is the path of a program of hack/tools, or of the folder that holds it.
func (c *Cluster) tool(name, program string) string {
	return filepath.Join(c.state.Tools[name].Bin, program)
}

// binaries are the programs that an operator has installed on the node: path there → file. runc is missing
// here: writeFolders has it.
func (c *Cluster) binaries() map[string]string {
	found := map[string]string{
		"/usr/local/bin/kubelet": c.tool("kubernetes", "kubelet"),
		"/usr/local/bin/kubectl": c.tool("kubernetes", "kubectl"),
	}
	for _, name := range []string{"containerd", "ctr", "containerd-shim-runc-v2"} {
		found["/usr/local/bin/"+name] = c.tool("containerd-"+c.state.Containerd, name)
	}
	return found
}

// lock keeps other programs from bringing the same cluster up or down at the same time.
func (l layout) lock() (unlock func(), err error) {
	file, err := os.OpenFile(l.dir+".lock", os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(file.Fd()), unix.LOCK_EX); err != nil {
		return nil, errors.Join(fmt.Errorf("lock %s: %w", file.Name(), err), file.Close())
	}
	return func() { _ = file.Close() }, nil
}

// Up brings the cluster up, or the missing parts of it, and writes a line for each part to progress. It returns
// when everything is ready.
func Up(ctx context.Context, options Options, progress io.Writer) (*Cluster, error) {
	l, err := findLayout()
	if err != nil {
		return nil, err
	}
	unlock, err := l.lock()
	if err != nil {
		return nil, err
	}
	defer unlock()
	c, err := load(l)
	if err != nil {
		return nil, err
	}
	if err := c.choose(options); err != nil {
		return nil, err
	}
	return c, c.bringUp(ctx, &report{out: progress})
}

// choose settles the options; a running cluster keeps its containerd.
func (c *Cluster) choose(options Options) error {
	up := c.state.Holder.alive()
	if !up {
		c.state = state{Parts: map[string]process{}, Done: map[string]string{}}
	}
	wanted := options.Containerd
	if wanted == "" {
		wanted = os.Getenv("CONTAINERD")
	}
	switch {
	case !up && wanted == "":
		c.state.Containerd = "2.2"
	case !up:
		c.state.Containerd = wanted
	case wanted != "" && wanted != c.state.Containerd:
		return fmt.Errorf("the cluster that is up has containerd %s, not %s: make cluster-down first", c.state.Containerd, wanted)
	}
	if !slices.Contains([]string{"1.7", "2.1", "2.2", "2.4"}, c.state.Containerd) {
		return fmt.Errorf("no containerd %q below hack/tools, known: 1.7, 2.1, 2.2, 2.4", c.state.Containerd)
	}
	c.state.Argo = nil
	if !options.NoArgo {
		c.state.Argo = []string{"argo-4.0", "argo-3.7"}
	}
	c.state.Requeue = cmp.Or(options.Requeue, 10*time.Second).String()
	c.state.Evented = options.EventedPLEG
	c.state.Shim = options.Shim
	if c.state.Shim == "" {
		c.state.Shim = os.Getenv("CONTAINERD_SHIM_WASM")
	}
	if c.state.Shim == "" {
		c.state.Shim = filepath.Join(c.repo, "bin", "containerd-shim-wasm-v1")
	}
	_, err := os.Stat(c.state.Shim)
	if err != nil {
		return fmt.Errorf("%w (make build)", err)
	}
	return nil
}

func (c *Cluster) bringUp(ctx context.Context, r *report) error {
	r.began = time.Now()
	if err := r.step("tools", func() (string, error) { return c.findTools(ctx) }); err != nil {
		return err
	}
	if err := r.step("node", func() (string, error) { return c.upNode(ctx) }); err != nil {
		return err
	}
	if err := r.step("shim", func() (string, error) { return c.upShim(ctx) }); err != nil {
		return err
	}
	if err := c.upParts(ctx, r); err != nil {
		return err
	}
	if err := r.step("images", func() (string, error) { return c.upImages(ctx) }); err != nil {
		return err
	}
	if err := r.step("objects", func() (string, error) { return c.upObjects(ctx) }); err != nil {
		return err
	}
	for _, name := range c.state.Argo {
		if err := r.step(name, func() (string, error) { return c.upArgo(ctx, name) }); err != nil {
			return err
		}
	}
	r.line("cluster", "up", time.Since(r.began))
	return nil
}

const running = "runs already"

// upNode makes the node. It first removes the rest of an earlier one, which a crash or a reboot ended.
func (c *Cluster) upNode(ctx context.Context) (string, error) {
	if c.state.Holder.alive() {
		return running, nil
	}
	if err := c.clean(ctx); err != nil {
		return "", err
	}
	if err := os.RemoveAll(c.logs()); err != nil {
		return "", err
	}
	if err := os.MkdirAll(c.logs(), 0o755); err != nil {
		return "", err
	}
	if err := errors.Join(c.startHolder(ctx), c.writeConfigs(), c.makeBucket()); err != nil {
		return "", err
	}
	return fmt.Sprintf("namespaces of process %d", c.state.Holder.PID), nil
}

func (c *Cluster) upShim(ctx context.Context) (string, error) {
	restart, err := c.installShim(ctx)
	if err != nil || !restart {
		return "installed", err
	}
	if c.process(Containerd).alive() {
		return "installed, containerd restarted", c.Restart(ctx, Containerd)
	}
	return "installed", nil
}

// upParts starts every part as soon as the parts that it needs are ready.
func (c *Cluster) upParts(ctx context.Context, r *report) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	parts := c.parts()
	ready := map[string]chan struct{}{}
	for _, p := range parts {
		ready[p.name] = make(chan struct{})
	}
	failures := make(chan error, len(parts))
	for _, p := range parts {
		go func() {
			for _, other := range p.after {
				select {
				case <-ready[other]:
				case <-ctx.Done():
					failures <- nil // only the first failure is reported
					return
				}
			}
			began := time.Now()
			what, err := c.upPart(ctx, p)
			switch {
			case err == nil:
				r.line(p.name, what, time.Since(began))
				close(ready[p.name])
			case ctx.Err() != nil:
				err = nil // the context stopped it: only the first failure is reported
			default:
				r.line(p.name, "FAILED", time.Since(began))
				err = fmt.Errorf("bring up %s: %w", p.name, err)
				cancel()
			}
			failures <- err
		}()
	}
	var all []error
	for range parts {
		all = append(all, <-failures)
	}
	return errors.Join(all...)
}

func (c *Cluster) upPart(ctx context.Context, p part) (string, error) {
	what := c.version(p.name)
	if c.process(p.name).alive() {
		return what + " " + running, c.wait(ctx, p)
	}
	if c.process(p.name).PID != 0 {
		what += ", had ended, started again"
	}
	if err := c.run(p); err != nil {
		return "", fmt.Errorf("%w\n%s", err, c.logTail(p.name, 15))
	}
	return what, c.wait(ctx, p)
}

func (c *Cluster) version(part string) string {
	switch part {
	case Containerd:
		return c.state.Tools["containerd-"+c.state.Containerd].Version
	case Etcd, S3Server:
		return c.state.Tools[part].Version
	}
	return c.state.Tools["kubernetes"].Version
}

// Down takes the cluster down: everything that Up started and made, except the logs and the tools. It is no
// error if no cluster is up.
func Down(ctx context.Context) error {
	l, err := findLayout()
	if err != nil {
		return err
	}
	unlock, err := l.lock()
	if err != nil {
		return err
	}
	defer unlock()
	c, err := load(l)
	if err != nil {
		return err
	}
	return c.clean(ctx)
}

func (c *Cluster) clean(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, stopWithin)
	defer cancel()
	if err := c.killNode(ctx); err != nil {
		return err
	}
	if err := leaks.RemoveCgroups(ctx, c.cgroups); err != nil {
		return err
	}
	var failures []error
	for _, path := range c.volatile() {
		failures = append(failures, os.RemoveAll(path))
	}
	return errors.Join(failures...)
}

// killNode kills the node's first process. The kernel then kills all others. Frozen processes die when they are
// thawed.
func (c *Cluster) killNode(ctx context.Context) error {
	if !c.state.Holder.alive() {
		return nil
	}
	if err := c.thaw(); err != nil {
		return err
	}
	if err := c.state.Holder.signal(syscall.SIGKILL); err != nil {
		return err
	}
	if err := c.state.Holder.gone(ctx); err != nil {
		return fmt.Errorf("wait for the end of the node's processes: %w", err)
	}
	return nil
}

// report writes progress, a line for each step.
type report struct {
	out   io.Writer
	began time.Time
	mu    sync.Mutex
}

func (r *report) step(name string, do func() (string, error)) error {
	began := time.Now()
	what, err := do()
	if err != nil {
		r.line(name, "FAILED", time.Since(began))
		return fmt.Errorf("bring up %s: %w", name, err)
	}
	r.line(name, what, time.Since(began))
	return nil
}

func (r *report) line(name, what string, took time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	fmt.Fprintf(r.out, "%-24s %-44s %5.1f s\n", name, strings.TrimSpace(what), took.Seconds())
}

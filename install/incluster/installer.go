// Package incluster keeps the shim installed on the Kubernetes node that its process
// runs on, as one pod of a DaemonSet: it installs or upgrades, restarts containerd when
// that is needed, labels the node, and undoes all of it when the DaemonSet is removed.
//
// What is written where is the business of package install. What decides here is not
// what was done before but what is: whether the running containerd offers the runtime,
// and whether the node has the label. So a process that is killed anywhere is followed
// by one that finishes the work, and one that finds it done changes nothing.
//
// The package never runs anything on the host, never touches a container, and restarts
// containerd at most once for an installation, once to undo it when it fails, and once
// for a removal.
// See RATIONALE.md, "Why is there no journal?"
package incluster

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os/exec"
	"strings"
	"time"

	"github.com/wasmshim/containerd-shim-wasm/install"
)

// Label is what an installed node carries, with the value "true"; the RuntimeClass
// selects nodes by it.
const Label = "wasm.shim/runtime"

// Options say where things are on the node. Paths are those inside the pod, which has
// the host's folders mounted under their own names.
type Options struct {
	// Install is passed on to package install. Binary is the shim in the image;
	// ContainerdVersion is filled in from the running containerd.
	Install install.Options
	// Node is the name of the node.
	Node string
	// DaemonSet is the name of the DaemonSet that the pod belongs to.
	DaemonSet string
	// Credentials is the folder of the pod's service account: its token, the API
	// server's certificate authority, and the namespace.
	Credentials string
	// Server is the address of the API server, as in https://10.96.0.1:443.
	Server string
	// Socket is the path of containerd's socket.
	Socket string
	// State is the shim's own folder, emptied by a removal.
	State string
	// Restart restarts containerd; see ParseRestart.
	Restart Restart
	// Timeout bounds the wait for containerd to serve after a restart.
	Timeout time.Duration
	// Drain bounds the wait of a removal for Wasm pods to end.
	Drain time.Duration
	// Interval is the time between two checks of the node.
	Interval time.Duration
	// Listen is the address that answers the readiness probe; empty for none.
	Listen string
}

// Installer does the work on one node.
type Installer struct {
	options   Options
	cluster   *cluster
	cri       cri
	log       *log.Logger
	readiness readiness
	daemonSet string // UID of the DaemonSet, when it could be asked for
	said      string // the last problem that was logged
}

// New returns an installer that logs to logger. It fails when the credentials cannot be
// read.
func New(options Options, logger *log.Logger) (*Installer, error) {
	cluster, err := newCluster(options.Server, options.Credentials)
	if err != nil {
		return nil, err
	}
	installer := &Installer{options: options, cluster: cluster, cri: cri{options.Socket}, log: logger}
	installer.readiness.set("the installation has not begun")
	return installer, nil
}

// Run installs, watches over the installation until the context ends, which is the
// pod's SIGTERM, and then removes it if the DaemonSet is gone. What it has begun it
// finishes. An error means that the node is not as it should be.
func (i *Installer) Run(ctx context.Context) error {
	stop, err := i.readiness.serve(i.options.Listen)
	if err != nil {
		return err
	}
	defer stop()
	if uid, err := i.cluster.daemonSetUID(ctx, i.options.DaemonSet); err == nil {
		i.daemonSet = uid
	}
	for !i.step(context.WithoutCancel(ctx)) {
		if !sleep(ctx, i.options.Interval) {
			break
		}
	}
	i.watch(ctx)
	return i.leave(context.WithoutCancel(ctx))
}

// permanentError is an error after which another attempt would only do the same harm.
type permanentError struct{ error }

func (e permanentError) Unwrap() error { return e.error }

// step makes one attempt to install, and reports whether that was the last one.
func (i *Installer) step(ctx context.Context) bool {
	err := i.attempt(ctx)
	if err == nil {
		return true
	}
	i.problem(err)
	if permanent := (permanentError{}); errors.As(err, &permanent) {
		i.log.Print("this pod does not try again: correct what failed, then delete the pod")
		return true
	}
	return false
}

// problem logs why the node is not ready, once until it changes.
func (i *Installer) problem(err error) {
	i.readiness.set(err.Error())
	if i.said == err.Error() {
		return
	}
	i.said = err.Error()
	i.log.Printf("not ready: %v", err)
	if manual := (*install.ManualError)(nil); errors.As(err, &manual) && manual.Entry != "" {
		i.log.Printf("add to %s, then restart containerd:\n%s", manual.Path, manual.Entry)
	}
}

// attempt brings the node from any state to the installed one.
func (i *Installer) attempt(ctx context.Context) error {
	o, err := i.inspect(ctx)
	if err != nil {
		return err
	}
	before, err := i.cri.configuration(ctx)
	if err != nil {
		return err
	}
	plan := o
	plan.DryRun = true
	planned, err := install.Install(ctx, plan)
	if err != nil {
		return err
	}
	saved, err := install.TakeSnapshot(planned.Files)
	if err != nil {
		return err
	}
	defer saved.Close()
	report, err := install.Install(ctx, o)
	i.tell(report)
	if err != nil {
		return errors.Join(err, saved.Restore())
	}
	if err := i.activate(ctx, before, report.Restart != "", saved); err != nil {
		return err
	}
	return i.label(ctx)
}

// inspect checks, before anything is changed, that the node is supported, and returns the
// options that fit it.
func (i *Installer) inspect(ctx context.Context) (install.Options, error) {
	o := i.options.Install
	name, version, err := i.cri.version(ctx)
	if err != nil {
		return o, err
	}
	if name != "containerd" {
		return o, fmt.Errorf("this node's container runtime is %s %s; the shim needs containerd", name, version)
	}
	o.ContainerdVersion = version
	if err := i.options.Restart.check(ctx); err != nil {
		return o, err
	}
	out, err := exec.CommandContext(ctx, o.Binary, "-v").CombinedOutput()
	if err != nil {
		return o, fmt.Errorf("the shim in this image does not run on this node: %w: %s", err, strings.TrimSpace(string(out)))
	}
	return o, nil
}

// activate makes the running containerd offer the runtime, and puts everything back
// when it does not. What changed in its files may be how it pulls images, which it
// does not tell: then it is restarted although it offers the runtime.
func (i *Installer) activate(ctx context.Context, before []byte, changed bool, saved *install.Snapshot) error {
	offered := install.CheckRunning(before, i.options.Install.NodeConfig) == nil
	if offered && !changed {
		i.log.Print("containerd offers the runtime already: no restart")
		return nil
	}
	if i.options.Restart.none() {
		return errors.New("containerd has not read the new configuration: restart containerd on this node")
	}
	err := i.restart(ctx)
	if err == nil {
		err = i.await(ctx, func(now []byte) error { return i.installed(before, now) })
	}
	if err == nil {
		i.log.Print("containerd serves and offers the runtime")
		return nil
	}
	return i.rollBack(ctx, saved, err)
}

func (i *Installer) restart(ctx context.Context) error {
	i.log.Printf("restarting containerd: %s", i.options.Restart)
	ctx, cancel := context.WithTimeout(ctx, i.options.Timeout)
	defer cancel()
	return i.options.Restart.restart(ctx)
}

// installed reports whether containerd reads what it should, and nothing else.
func (i *Installer) installed(before, now []byte) error {
	if err := install.CheckRunning(now, i.options.Install.NodeConfig); err != nil {
		return err
	}
	if err := install.CompareRunning(before, now); err != nil {
		return final{fmt.Errorf("%w; if that was a change that only waited for a restart, delete this pod to try again", err)}
	}
	return nil
}

// rollBack puts the files back and restarts containerd on them.
func (i *Installer) rollBack(ctx context.Context, saved *install.Snapshot, cause error) error {
	i.log.Printf("installing failed: %v", cause)
	i.log.Print("putting back what was there")
	err := saved.Restore()
	if err == nil {
		err = i.restart(ctx)
	}
	if err == nil {
		err = i.await(ctx, func([]byte) error { return nil })
	}
	if err != nil {
		return permanentError{fmt.Errorf("installing failed (%w), and so did undoing it: %w; this node needs help", cause, err)}
	}
	i.log.Print("containerd serves again with what was there before")
	return permanentError{fmt.Errorf("installing failed and was undone: %w", cause)}
}

// final is an error that waiting does not cure.
type final struct{ error }

func (e final) Unwrap() error { return e.error }

// await asks containerd for its configuration until done accepts it.
func (i *Installer) await(ctx context.Context, done func(configuration []byte) error) error {
	ctx, cancel := context.WithTimeout(ctx, i.options.Timeout)
	defer cancel()
	for {
		configuration, err := i.cri.configuration(ctx)
		if err == nil {
			err = done(configuration)
		}
		if err == nil || errors.As(err, new(final)) {
			return err
		}
		if !sleep(ctx, pollInterval) {
			return fmt.Errorf("after %v: %w", i.options.Timeout, err)
		}
	}
}

// pollInterval is the time between two requests for something that is due any moment.
const pollInterval = 200 * time.Millisecond

// sleep waits; it returns false at once when the context ends.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

func (i *Installer) tell(report install.Report) {
	for _, line := range report.Lines {
		i.log.Print(line)
	}
}

// label gives the node the label and lets the pod become ready.
func (i *Installer) label(ctx context.Context) error {
	labelled, err := i.cluster.setLabel(ctx, i.options.Node, true)
	if err != nil {
		return err
	}
	if labelled {
		i.log.Printf("labelled node %s: %s=true", i.options.Node, Label)
	}
	if !i.readiness.ready() {
		i.log.Print("ready")
	}
	i.said = ""
	i.readiness.set("")
	return nil
}

// watch looks after the label until the context ends: it comes back when somebody takes
// it away, and goes while containerd does not offer the runtime. It writes no file and
// restarts nothing, so that it does not fight with the node's other managers.
func (i *Installer) watch(ctx context.Context) {
	for sleep(ctx, i.options.Interval) {
		if err := i.look(context.WithoutCancel(ctx)); err != nil {
			i.problem(err)
		}
	}
}

func (i *Installer) look(ctx context.Context) error {
	configuration, err := i.cri.configuration(ctx)
	if err != nil {
		return err // perhaps it is being restarted: the label stays
	}
	if lost := install.CheckRunning(configuration, i.options.Install.NodeConfig); lost != nil {
		if _, err := i.cluster.setLabel(ctx, i.options.Node, false); err != nil {
			return errors.Join(lost, err)
		}
		return fmt.Errorf("%w any more, so this node has lost its label; delete this pod to install again", lost)
	}
	return i.label(ctx)
}

// Package testnode runs a real, private containerd of a pinned version for tests, the demo and the
// benchmark, with folders, sockets and a namespace of its own, and reports what tasks leave behind on
// the machine. It never touches a containerd that it did not start. No shipped binary imports it.
package testnode

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"github.com/containerd/containerd/v2/client"

	"github.com/wasmshim/containerd-shim-wasm/internal/poll"
)

const (
	readyWithin = 2 * time.Minute
	stopWithin  = 2 * time.Minute
)

// Options are the node's settings. The zero value is the default version without CRI.
type Options struct {
	Version  string   // one of [Versions]; [DefaultVersion] if empty
	Shim     string   // our shim; by default $CONTAINERD_SHIM_WASM, else bin/containerd-shim-wasm-v1 in the tree
	CRI      bool     // enable the CRI plugin, with pods of both runtimes; see [Node.Pods]
	NRI      bool     // serve plugins of NRI at [Node.NRI]
	Config   string   // TOML that containerd imports after the node's own, in the format of this version
	Env      []string // NAME=value, for containerd and with it the shims
	LogLevel string   // containerd's; "debug" if empty, which also gives shims -debug
	Parent   string   // where to make the node's folder; the system's temporary folder if empty

	WithoutShim bool // CRI's configuration is a node's on which install has not run; [Node.ConfigPath] may be edited
}

// Node is one containerd with its folders. Its methods are not safe for concurrent use, except those
// that only send requests to it: Ctr, CtrCommand, Client, Import, Snapshot and Leaks.
type Node struct {
	Dir       string // all of the node's files
	Namespace string // containerd namespace, and so the cgroup parent of its containers; unique
	Version   string // as in [Options]
	Release   string // the full version, as in 2.2.9

	options Options
	tools   string // folder of containerd, ctr and containerd-shim-runc-v2
	path    string // PATH of containerd
	daemon  *daemon
}

// daemon is one process of containerd.
type daemon struct {
	process *os.Process
	exited  chan struct{} // closed when it is gone
	err     error         // how it ended, valid after exited
}

// Start builds the tools that are missing, starts containerd and returns when it serves. The caller
// must call [Node.Stop].
func Start(ctx context.Context, options Options) (*Node, error) {
	if options.Version == "" {
		options.Version = DefaultVersion
	}
	node, err := prepare(ctx, options)
	if err != nil {
		return nil, fmt.Errorf("prepare containerd %s: %w", options.Version, err)
	}
	if err := node.Restart(ctx); err != nil {
		return nil, errors.Join(err, os.RemoveAll(node.Dir))
	}
	return node, nil
}

func prepare(ctx context.Context, options Options) (*Node, error) {
	release, err := release(ctx, options.Version)
	if err != nil {
		return nil, err
	}
	names := []string{"containerd-" + options.Version, "runc"}
	if options.CRI {
		names = append(names, "cni-plugins")
	}
	folders, err := Tools(ctx, names...)
	if err != nil {
		return nil, err
	}
	shim, err := shimPath(options.Shim)
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp(options.Parent, "tn-")
	if err != nil {
		return nil, err
	}
	// Room for the longest socket below it: the kernel's limit is 107 bytes (unix(7)).
	if len(dir) > 60 {
		return nil, errors.Join(fmt.Errorf("%s is too long for unix sockets below it: set TMPDIR to a short one", dir), os.Remove(dir))
	}
	node := &Node{
		Dir:       dir,
		Namespace: filepath.Base(dir),
		Version:   options.Version,
		Release:   release,
		options:   options,
		tools:     folders[0],
		path:      strings.Join([]string{folders[0], filepath.Dir(shim), folders[1], os.Getenv("PATH")}, ":"),
	}
	err = node.writeConfig()
	if err == nil && options.CRI {
		err = node.writeNetwork(folders[2])
	}
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	return node, nil
}

// shimPath returns the path of our shim, which need not exist: not every test uses it.
func shimPath(wanted string) (string, error) {
	if wanted == "" {
		wanted = os.Getenv("CONTAINERD_SHIM_WASM")
	}
	if wanted != "" {
		return filepath.Abs(wanted)
	}
	root, err := sourceTree()
	return filepath.Join(root, "bin", "containerd-shim-wasm-v1"), err
}

// Address is the path of containerd's gRPC socket.
func (n *Node) Address() string { return filepath.Join(n.Dir, "c.sock") }

// NRI is the path of the socket for NRI plugins, of a node that was started with NRI.
func (n *Node) NRI() string { return filepath.Join(n.Dir, "nri.sock") }

// ConfigPath is the path of containerd's configuration.
func (n *Node) ConfigPath() string { return n.config() }

// Tool is the path of one of containerd's programs.
func (n *Node) Tool(name string) string { return filepath.Join(n.tools, name) }

// Log is the path of containerd's log, which holds the shims' logs too.
func (n *Node) Log() string { return filepath.Join(n.Dir, "containerd.log") }

// State is containerd's state folder.
func (n *Node) State() string { return filepath.Join(n.Dir, "state") }

// Root is containerd's root folder.
func (n *Node) Root() string { return filepath.Join(n.Dir, "root") }

// Bundle is the folder of a task's bundle.
func (n *Node) Bundle(id string) string {
	return filepath.Join(n.State(), bundles, n.Namespace, id)
}

// PID is the process id of the containerd that runs now.
func (n *Node) PID() int { return n.daemon.process.Pid }

// Restart starts containerd on the node's folders, after [Node.Kill9] or [Node.Terminate], and returns
// when it serves.
func (n *Node) Restart(ctx context.Context) error {
	if n.daemon != nil && !n.daemon.gone() {
		return fmt.Errorf("containerd %s is still running", n.Release)
	}
	log, err := os.OpenFile(n.Log(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer log.Close()
	command := exec.Command(filepath.Join(n.tools, "containerd"), "--config", n.config())
	command.Dir = n.Dir
	command.Stdout, command.Stderr = log, log
	command.Env = append(os.Environ(), n.options.Env...)
	command.Env = append(command.Env, "PATH="+n.path, n.marker(), "NOTIFY_SOCKET=")
	command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	start := launch
	if n.options.CRI {
		start = launchApart
	}
	if n.daemon, err = start(command); err != nil {
		return fmt.Errorf("start containerd %s: %w", n.Release, err)
	}
	err = n.ready(ctx)
	if err == nil && n.options.CRI {
		err = n.podsReady(ctx)
	}
	if err != nil {
		err = fmt.Errorf("start containerd %s: %w\n%s", n.Release, err, n.LogTail(0, 20))
		return errors.Join(err, n.Kill9())
	}
	return nil
}

// launch starts the command on a thread that lives as long as the process does, because Pdeathsig
// fires when the thread that forked ends (prctl(2)).
func launch(command *exec.Cmd) (*daemon, error) {
	return launchOn(command, func() error { return nil })
}

// launchOn calls prepare on the thread first. The thread ends with the command, so the prepared state
// ends with it.
func launchOn(command *exec.Cmd, prepare func() error) (*daemon, error) {
	d := &daemon{exited: make(chan struct{})}
	started := make(chan error)
	go func() {
		runtime.LockOSThread()
		err := prepare()
		if err == nil {
			err = command.Start()
		}
		d.process = command.Process
		started <- err
		if err != nil {
			return
		}
		d.err = command.Wait()
		close(d.exited)
	}()
	return d, <-started
}

func (d *daemon) gone() bool {
	select {
	case <-d.exited:
		return true
	default:
		return false
	}
}

// ready waits until containerd answers or has ended.
func (n *Node) ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, readyWithin)
	defer cancel()
	exited := n.daemon.exited // that of this process, not of a later one
	go func() {
		select {
		case <-exited:
			cancel()
		case <-ctx.Done():
		}
	}()
	serving := func() (bool, error) {
		if _, err := os.Stat(n.Address()); err != nil {
			return false, nil
		}
		c, err := client.New(n.Address(), client.WithTimeout(time.Second))
		if err != nil {
			return false, nil
		}
		defer c.Close()
		return c.IsServing(ctx)
	}
	err := poll.Until(ctx, serving)
	if n.daemon.gone() {
		return fmt.Errorf("it ended: %w", n.daemon.err)
	}
	return err
}

// Kill9 kills containerd with SIGKILL and returns when it is gone. Its tasks keep running.
func (n *Node) Kill9() error { return n.end(syscall.SIGKILL) }

// Terminate sends containerd SIGTERM and returns when it is gone. Its tasks keep running.
func (n *Node) Terminate() error { return n.end(syscall.SIGTERM) }

func (n *Node) end(signal os.Signal) error {
	if err := n.daemon.process.Signal(signal); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	select {
	case <-n.daemon.exited:
		return nil
	case <-time.After(stopWithin):
		return fmt.Errorf("containerd %s is still there %v after %v", n.Release, stopWithin, signal)
	}
}

// LogTail returns the last lines of the log from the offset on.
func (n *Node) LogTail(offset int64, lines int) string {
	content, err := os.ReadFile(n.Log())
	if err != nil {
		return err.Error()
	}
	content = content[min(offset, int64(len(content))):]
	all := strings.Split(strings.TrimRight(string(content), "\n"), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}

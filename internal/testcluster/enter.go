package testcluster

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"

	"golang.org/x/sys/unix"
)

// The main thread cannot end, so a throw-away goroutine must never run on it: see enter.
func init() { runtime.LockOSThread() }

// namespaces are the node's namespaces that a thread can enter, in the order of entering. The mount
// namespace is the last, because the machine's /proc is needed to find the others.
var allNamespaces = []string{"net", "uts", "pid", "mnt"}

// enter runs f on a thread of its own in the given namespaces of the node. The thread dies with it. A
// process that f starts is born in those namespaces.
func (c *Cluster) enter(namespaces []string, f func() error) error {
	result := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: nothing else may run on a thread in other namespaces
		result <- func() error {
			if err := c.join(namespaces); err != nil {
				return fmt.Errorf("enter the cluster's namespaces: %w", err)
			}
			return f()
		}()
	}()
	return <-result
}

func (c *Cluster) join(namespaces []string) error {
	if !c.state.Holder.alive() {
		return errors.New("the cluster is down: make cluster")
	}
	// A mount namespace can only be entered by a thread that shares its root folder with no other.
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return os.NewSyscallError("unshare", err)
	}
	var fds []int
	defer func() {
		for _, fd := range fds {
			_ = unix.Close(fd)
		}
	}()
	for _, name := range namespaces {
		path := fmt.Sprintf("/proc/%d/ns/%s", c.state.Holder.PID, name)
		fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return &os.PathError{Op: "open", Path: path, Err: err}
		}
		fds = append(fds, fd)
	}
	for i, fd := range fds {
		if err := unix.Setns(fd, 0); err != nil {
			return fmt.Errorf("setns %s: %w", namespaces[i], err)
		}
	}
	return nil
}

// Dial connects to an address inside the cluster's network: the API server, the S3 server, a pod. The
// host must be an IP address; there is no DNS.
func (c *Cluster) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	var conn net.Conn
	err := c.enter([]string{"net"}, func() (err error) {
		conn, err = (&net.Dialer{}).DialContext(ctx, network, address)
		return err
	})
	return conn, err
}

// StartOnNode starts a command in the node's network, process and mount namespaces, as a shell of the
// node would. Its path must be absolute in the node's file system. Pass a command that was not started;
// call Wait on it as usual.
func (c *Cluster) StartOnNode(command *exec.Cmd) error {
	if command.Dir == "" {
		command.Dir = "/"
	}
	return c.enter(allNamespaces, command.Start)
}

// RunOnNode is [Cluster.StartOnNode] and Wait.
func (c *Cluster) RunOnNode(command *exec.Cmd) error {
	if err := c.StartOnNode(command); err != nil {
		return err
	}
	return command.Wait()
}

// NodeCommand returns a command with the PATH and the environment of the node for [Cluster.RunOnNode].
// It is killed when the context ends.
func (c *Cluster) NodeCommand(ctx context.Context, path string, args ...string) *exec.Cmd {
	command := exec.CommandContext(ctx, path, args...)
	command.Env = c.nodeEnv()
	return command
}

func (c *Cluster) nodeEnv() []string {
	return []string{
		"PATH=" + nodePath,
		"HOME=/root",
		"CONTAINERD_SUPPRESS_DEPRECATION_WARNINGS=1",
	}
}

const nodePath = "/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin"

package testnode

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	eventtypes "github.com/containerd/containerd/api/events"
	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/events"
	"github.com/containerd/typeurl/v2"

	"github.com/wasmshim/containerd-shim-wasm/internal/poll"
)

// Result is how a command ended.
type Result struct {
	Stdout, Stderr string
	Code           int // exit code; -1 when a signal ended it
}

// CtrOpts change how [Node.RunCtr] runs ctr.
type CtrOpts struct {
	Stdin   io.Reader     // its EOF is held back until the task or exec has started
	Timeout time.Duration // two minutes if 0
}

// CtrCommand returns ctr with the node's address and namespace before the arguments, not yet
// started. It is killed when the context ends.
func (n *Node) CtrCommand(ctx context.Context, args ...string) *exec.Cmd {
	args = append([]string{"--address", n.Address(), "--namespace", n.Namespace}, args...)
	command := exec.CommandContext(ctx, filepath.Join(n.tools, "ctr"), args...)
	command.Dir = n.Dir
	// The warning about cgroup v1 would be mixed with the container's own output.
	command.Env = append(os.Environ(), "CONTAINERD_SUPPRESS_DEPRECATION_WARNINGS=1")
	// A pipe that a forgotten child holds open must not block the caller.
	command.WaitDelay = 5 * time.Second
	return command
}

// RunCtr runs ctr to its end. It returns an error if ctr could not be started or did not end in time, but
// not for a nonzero exit code.
func (n *Node) RunCtr(ctx context.Context, opts CtrOpts, args ...string) (Result, error) {
	if opts.Timeout == 0 {
		opts.Timeout = 2 * time.Minute
	}
	ctx, cancel := context.WithTimeout(ctx, opts.Timeout)
	defer cancel()
	command := n.CtrCommand(ctx, args...)
	var stdout, stderr strings.Builder
	command.Stdout, command.Stderr = &stdout, &stderr
	if opts.Stdin != nil {
		if err := n.feed(ctx, command, opts.Stdin); err != nil {
			return Result{}, err
		}
	}
	err := command.Run()
	result := Result{Stdout: stdout.String(), Stderr: stderr.String()}
	if command.ProcessState != nil {
		result.Code = command.ProcessState.ExitCode()
	}
	var exit *exec.ExitError
	if ctx.Err() != nil {
		err = ctx.Err()
	} else if errors.As(err, &exit) {
		err = nil
	}
	if err != nil {
		err = fmt.Errorf("ctr %s: %w (stdout %q, stderr %q)", strings.Join(args, " "), err, result.Stdout, result.Stderr)
	}
	return result, err
}

// feed makes stdin the standard input of ctr, which is not started yet. ctr closes the container's
// standard input at the EOF of its own, but not if the EOF comes before it has created the task or exec
// (stdinCloser in cmd/ctr/commands/tasks). So the EOF waits for the event of the start.
func (n *Node) feed(ctx context.Context, command *exec.Cmd, stdin io.Reader) error {
	c, err := n.Connect()
	if err != nil {
		return err
	}
	started, lost, err := subscribe(ctx, c, `topic=="/tasks/start"`, `topic=="/tasks/exec-started"`)
	if err != nil {
		return errors.Join(err, c.Close())
	}
	pipe, err := command.StdinPipe()
	if err != nil {
		return errors.Join(err, c.Close())
	}
	go func() {
		defer c.Close()
		defer pipe.Close()
		// ctr may end first and break the pipe: the caller then looks at ctr's own message.
		_, _ = io.Copy(pipe, stdin)
		for {
			select {
			case event := <-started:
				if concerns(event, command.Args) {
					return
				}
			case <-lost: // the context has ended, or the connection
				return
			}
		}
	}()
	return nil
}

// subscribe returns when containerd delivers events: an event that we published has come back. Events
// before containerd has registered the subscriber are lost.
func subscribe(ctx context.Context, c *client.Client, filters ...string) (<-chan *events.Envelope, <-chan error, error) {
	const marker = "/testnode/subscribed"
	told, lost := c.Subscribe(ctx, append(filters, fmt.Sprintf("topic==%q", marker))...)
	err := poll.Until(ctx, func() (bool, error) {
		if err := c.EventService().Publish(ctx, marker, &eventtypes.NamespaceCreate{Name: "subscribed"}); err != nil {
			return false, err
		}
		select {
		case <-told:
			return true, nil
		case err := <-lost:
			return false, err
		default:
			return false, nil
		}
	})
	return told, lost, err
}

// concerns reports whether an event is the start of the task or exec that the arguments name.
func concerns(envelope *events.Envelope, args []string) bool {
	event, err := typeurl.UnmarshalAny(envelope.Event)
	if err != nil {
		return false
	}
	switch e := event.(type) {
	case *eventtypes.TaskStart:
		return slices.Contains(args, e.ContainerID)
	case *eventtypes.TaskExecStarted:
		return slices.Contains(args, e.ExecID)
	}
	return false
}

// ImportImage imports an image tar, as [testguest.WriteImage] writes it, and unpacks it.
func (n *Node) ImportImage(ctx context.Context, tarPath string) error {
	return n.importInto(ctx, n.Namespace, tarPath)
}

func (n *Node) importInto(ctx context.Context, namespace, tarPath string) error {
	if _, err := os.Stat(tarPath); err != nil {
		return err
	}
	result, err := n.RunCtr(ctx, CtrOpts{}, "--namespace", namespace, "images", "import", tarPath)
	if err == nil && result.Code != 0 {
		err = fmt.Errorf("import image %s: %s", tarPath, result.Stderr)
	}
	return err
}

// Connect returns a client in the node's namespace, which the caller closes.
func (n *Node) Connect() (*client.Client, error) {
	return client.New(n.Address(), client.WithDefaultNamespace(n.Namespace), client.WithTimeout(10*time.Second))
}

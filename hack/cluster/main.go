// Command cluster brings the test cluster up and down and runs kubectl on it; see internal/testcluster.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"syscall"

	"github.com/wasmshim/containerd-shim-wasm/internal/testcluster"
)

const usage = `usage: go run ./hack/cluster up              bring the cluster up, or what is missing of it
       go run ./hack/cluster down            take it down; the logs stay
       go run ./hack/cluster with CMD ARGS…  run a command while it is up; down afterwards unless it was up before
       go run ./hack/cluster status          tell what runs
       go run ./hack/cluster kubectl ARGS…   run kubectl on it
       go run ./hack/cluster node CMD ARGS…  run a command on the node: ctr, ps, a shell
       go run ./hack/cluster env             print shell variables: KUBECONFIG and others

CONTAINERD=1.7, 2.1, 2.2 or 2.4 chooses the containerd of a cluster that is brought up.`

var errUsage = errors.New("unknown command line")

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code, err := run(ctx, os.Args[1:])
	stop()
	switch {
	case errors.Is(err, errUsage):
		fmt.Fprintln(os.Stderr, usage)
	case err != nil:
		fmt.Fprintln(os.Stderr, "cluster:", err)
	}
	os.Exit(code)
}

func run(ctx context.Context, args []string) (int, error) {
	verb := ""
	if len(args) > 0 {
		verb, args = args[0], args[1:]
	}
	var err error
	switch verb {
	case "up":
		_, err = testcluster.Up(ctx, testcluster.Options{}, os.Stdout)
	case "down":
		err = testcluster.Down(ctx)
	case "with":
		return with(ctx, args)
	case "status":
		return status()
	case "kubectl", "node":
		return pass(ctx, verb, args)
	case "env":
		err = env()
	default:
		return 2, errUsage
	}
	if err != nil {
		return 1, err
	}
	return 0, nil
}

// with returns the exit code of the command.
func with(ctx context.Context, args []string) (code int, err error) {
	if len(args) == 0 {
		return 2, errUsage
	}
	if _, err := testcluster.Open(); err != nil {
		defer func() {
			fmt.Println("taking the cluster down")
			if failed := testcluster.Down(context.Background()); failed != nil {
				code, err = max(code, 1), errors.Join(err, failed)
			}
		}()
	}
	if _, err := testcluster.Up(ctx, testcluster.Options{}, os.Stdout); err != nil {
		return 1, err
	}
	command := exec.CommandContext(ctx, args[0], args[1:]...)
	command.Cancel = func() error { return command.Process.Signal(os.Interrupt) }
	command.Stdin, command.Stdout, command.Stderr = os.Stdin, os.Stdout, os.Stderr
	return exitCode(command.Run())
}

// exitCode is the exit code of a command that has ended.
func exitCode(err error) (int, error) {
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit) && exit.Exited():
		return exit.ExitCode(), nil
	case err != nil:
		return 1, err
	}
	return 0, nil
}

// status exits with 3 when the cluster is down, as service managers do.
func status() (int, error) {
	c, err := testcluster.Open()
	if err != nil {
		return 3, err
	}
	code := 0
	for _, s := range c.Status() {
		fmt.Println(s)
		if s.PID == 0 {
			code = 1
		}
	}
	return code, nil
}

func env() error {
	c, err := testcluster.Open()
	if err != nil {
		return err
	}
	for name, value := range c.Env() {
		fmt.Printf("export %s=%q\n", name, value)
	}
	return nil
}

// pass runs a command with this one's standard streams and returns its exit code.
func pass(ctx context.Context, verb string, args []string) (int, error) {
	c, err := testcluster.Open()
	if err != nil {
		return 3, err
	}
	var command *exec.Cmd
	start := c.StartInNetwork
	switch {
	case verb == "kubectl":
		command = c.KubectlCommand(ctx, args...)
	case len(args) == 0:
		return 2, errUsage
	default:
		command = c.NodeCommand(ctx, "/usr/bin/env", args...)
		start = c.StartOnNode
	}
	command.Stdin, command.Stdout, command.Stderr = os.Stdin, os.Stdout, os.Stderr
	if err := start(command); err != nil {
		return 1, err
	}
	return exitCode(command.Wait())
}

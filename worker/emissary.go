package worker

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/wasmshim/containerd-shim-wasm/argo"
	"github.com/wasmshim/containerd-shim-wasm/worker/confine"
	"github.com/wasmshim/containerd-shim-wasm/worker/control"
)

// forwarded are the signals that Argo's emissary passes on to its program: all that others send to a program.
// Signals that the kernel sends to the process itself (SIGSEGV, SIGCHLD, …) are not among them.
var forwarded = []os.Signal{
	syscall.SIGHUP, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGALRM, syscall.SIGTERM,
}

// emissaryMain replaces Argo's emissary. This worker keeps the contract with the other containers of the pod.
// It runs the guest as a child, in a second worker, so that the guest can be signalled, killed for memory and
// run again while the contract is kept.
// See RATIONALE.md, "Why a second worker for the guest?"
func emissaryMain(order control.Run, daemon control.Worker) int {
	// Unlike a guest's worker, this one runs Go code for as long as it lives.
	debug.SetGCPercent(50)
	// Argo's guests inherit the environment of argoexec.
	order.Env = complete(order.Env, order.Root, os.Getuid())
	signals := notify()
	command, _, err := argo.Parse(order.Emissary)
	if err == nil {
		err = confine.Emissary()
	}
	if sendErr := daemon.Report(report(nil, err)); sendErr != nil || err != nil {
		return startFailure
	}
	if code, err := awaitStart(daemon, signals); err != nil {
		return code
	}
	if err := daemon.Close(); err != nil {
		return startFailure
	}
	emissary := argo.Emissary{
		Command: command, Env: order.Env, Volume: argo.VolumePath, Root: order.Root, Dir: order.Cwd,
		Stdout: os.Stdout, Stderr: os.Stderr, Signals: signals,
		Start: func(_ context.Context, attempt argo.Attempt) (argo.Guest, error) { return startChild(order, attempt) },
	}
	return emissary.Run(context.Background())
}

var errCalledOff = errors.New("called off before it was started")

// notify returns a channel of the signals that reach this process from now on.
func notify() <-chan syscall.Signal {
	received, signals := make(chan os.Signal, 64), make(chan syscall.Signal)
	signal.Notify(received, forwarded...)
	go func() {
		for s := range received {
			signals <- s.(syscall.Signal)
		}
	}()
	return signals
}

// awaitStart waits for the start byte, or for a signal, which ends a container that has not been started.
func awaitStart(daemon control.Worker, signals <-chan syscall.Signal) (int, error) {
	started := make(chan error, 1)
	go func() { started <- daemon.AwaitStart() }()
	select {
	case err := <-started:
		return startFailure, err
	case s := <-signals:
		return 128 + int(s), errCalledOff
	}
}

// child is a guest's worker that this worker started.
type child struct {
	pid int
}

func startChild(order control.Run, attempt argo.Attempt) (argo.Guest, error) {
	ours, theirs, err := control.Pair()
	if err != nil {
		return nil, err
	}
	defer ours.Close()
	defer theirs.Close()
	pid, err := syscall.ForkExec(control.WorkerPath, attempt.Args, &syscall.ProcAttr{
		Dir: "/", Env: os.Environ(), Sys: &syscall.SysProcAttr{},
		Files: []uintptr{0, attempt.Stdout.Fd(), attempt.Stderr.Fd(), theirs.Fd()},
	})
	if err != nil {
		return nil, fmt.Errorf("start the guest's worker: %w", err)
	}
	theirs.Close()
	order.Args, order.Emissary = attempt.Args, nil
	c := &child{pid: pid}
	if err := c.begin(ours, order); err != nil {
		c.Signal(syscall.SIGKILL)
		c.Wait()
		return nil, err
	}
	return c, nil
}

// begin sends the child its order and starts it.
func (c *child) begin(daemon control.Daemon, order control.Run) error {
	if err := daemon.Run(order); err != nil {
		return err
	}
	report, err := daemon.Report()
	if err != nil {
		return fmt.Errorf("the guest's worker ended before it was ready: %w", err)
	}
	if report.Error != "" {
		return errors.New(report.Error)
	}
	if err := c.limitFiles(); err != nil {
		return err
	}
	return daemon.Start()
}

// limitFiles sets the child's limit of open files to the one that the daemon set for this worker: a Go
// program raises its own limit when it starts.
func (c *child) limitFiles() error {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return fmt.Errorf("read the limit of open files: %w", err)
	}
	if err := unix.Prlimit(c.pid, unix.RLIMIT_NOFILE, &limit, nil); err != nil {
		return fmt.Errorf("limit open files to %d: %w", limit.Cur, err)
	}
	return nil
}

// Signal sends the guest a signal.
func (c *child) Signal(s syscall.Signal) error { return syscall.Kill(c.pid, s) }

// Wait waits until the guest ends.
func (c *child) Wait() (code int, signal syscall.Signal, err error) {
	var status syscall.WaitStatus
	for {
		_, err := syscall.Wait4(c.pid, &status, 0, nil)
		if err == nil {
			break
		}
		if err != syscall.EINTR {
			return 0, 0, fmt.Errorf("wait for process %d: %w", c.pid, err)
		}
	}
	if status.Signaled() {
		return 0, status.Signal(), nil
	}
	return status.ExitStatus(), 0, nil
}

// killMain replaces argoexec's kill command: it signals a process of the container.
func killMain(daemon control.Worker) int {
	order, err := daemon.Run()
	if err != nil {
		return startFailure
	}
	kill, _, err := argo.ParseKill(order.Args)
	if err == nil {
		err = confine.Signaller()
	}
	if sendErr := daemon.Report(report(nil, err)); sendErr != nil || err != nil {
		return startFailure
	}
	if err := daemon.AwaitStart(); err != nil {
		return startFailure
	}
	fmt.Println(kill)
	if err := syscall.Kill(kill.PID, kill.Signal); err != nil {
		fmt.Fprintf(os.Stderr, "error: signal process %d: %v\n", kill.PID, err)
		return 1
	}
	return 0
}

// Package worker is the worker: the only process that contains wasmtime. It compiles a module or a component,
// or runs a compiled one as a guest under WASI preview 1 or 0.2. It expects to be started confined (package
// sandbox), and gives up the system calls that its role does not need (package confine). It opens only the
// machine code, the guest's root, and the files that the guest opens there.
package worker

import (
	"errors"
	"fmt"
	"os"

	"github.com/wasmshim/containerd-shim-wasm/worker/confine"
	"github.com/wasmshim/containerd-shim-wasm/worker/control"
)

// Main is the worker's main function; it returns the exit code.
func Main() int {
	daemon := control.Own()
	switch role := os.Getenv(control.RoleEnv); role {
	case control.RoleRun:
		return runMain(daemon)
	case control.RoleCompile:
		return compileMain(daemon)
	case control.RoleKill:
		return killMain(daemon)
	default:
		fmt.Fprintln(os.Stderr, "wasm-worker is started by containerd-shim-wasm-v1, not by hand")
		return 2
	}
}

func compileMain(daemon control.Worker) int {
	err := confine.Preparer()
	order, orderErr := daemon.Compile()
	if orderErr != nil {
		return startFailure
	}
	var module *control.Module
	if err == nil {
		module, err = compileIn(order)
	}
	if err := daemon.Report(report(module, err)); err != nil {
		return startFailure
	}
	return 0
}

// compileIn compiles standard input if the limits of the pod that is charged for it leave enough threads.
func compileIn(order control.Compile) (*control.Module, error) {
	if err := tryThreads(compilerThreads()); err != nil {
		return nil, fmt.Errorf("compile %s: %w", order.Name, err)
	}
	return Compile(order, os.Stdin, os.Stdout)
}

func report(module *control.Module, err error) control.Report {
	if err != nil {
		failure := control.Report{Error: err.Error(), Refusal: refusalOf(err)}
		errors.As(err, &failure.Errno)
		return failure
	}
	return control.Report{Module: module}
}

func prepare(order control.Run) (guest, error) {
	if err := exitOnSignals(); err != nil {
		return nil, err
	}
	if err := tryThreads(engineThreads); err != nil {
		return nil, err
	}
	guest, err := load(order)
	if err != nil {
		return nil, err
	}
	return guest, confine.Guest()
}

// runMain prepares the guest while containerd is still creating the task, reports, and runs the guest after
// the start byte. If the daemon dies before that, the worker exits.
func runMain(daemon control.Worker) int {
	order, err := daemon.Run()
	if err != nil {
		return startFailure
	}
	if order.Emissary != nil {
		return emissaryMain(order, daemon)
	}
	guest, err := prepare(order)
	if err := daemon.Report(report(nil, err)); err != nil {
		return startFailure
	}
	if err != nil {
		return startFailure
	}
	if err := daemon.AwaitStart(); err != nil {
		return startFailure
	}
	// The guest's process has only the guest's descriptors.
	if err := daemon.Close(); err != nil {
		return startFailure
	}
	return guest.run(os.Stderr)
}

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/containerd/v2/pkg/oci"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/wasmshim/containerd-shim-wasm/internal/testguest"
	"github.com/wasmshim/containerd-shim-wasm/internal/testworker"
	"github.com/wasmshim/containerd-shim-wasm/sandbox"
	"github.com/wasmshim/containerd-shim-wasm/worker/control"
)

// launches are the times of sandboxes launched without containerd, shim or cgroup: of one program
// as a module and as a component.
type launches struct {
	module, component samples
	n                 int
}

const (
	untilLaunched = "launch (the worker is forked)"
	untilExit     = "launched to the guest's exit"
	launchToExit  = "launch to the guest's exit"
)

func (l launches) print(w io.Writer) {
	fmt.Fprintf(w, "sandbox below containerd, without cgroup, n=%d each in turn\n", l.n)
	table := newTable(w)
	fmt.Fprintln(table, "ms\tmodule p50\tp95\tcomponent p50\tp95\t")
	for _, what := range []string{untilLaunched, untilExit, launchToExit} {
		fmt.Fprintf(table, "%s\t%.2f\t%.2f\t%.2f\t%.2f\t\n", what, l.module.quantile(what, 0.5), l.module.quantile(what, 0.95),
			l.component.quantile(what, 0.5), l.component.quantile(what, 0.95))
	}
	table.Flush()
	printGoal(w, "launch to the guest's exit, p50", l.module.quantile(launchToExit, 0.5), "≤", 6, "ms")
}

// stage is the state that all launches share.
type stage struct {
	worker, code *os.File
	base, rootfs string
	spec         *specs.Spec
	null         *os.File
}

func measureLaunch(ctx context.Context, n int) (launches, error) {
	result := launches{module: samples{}, component: samples{}, n: n}
	dir, err := os.MkdirTemp("", "bench-")
	if err != nil {
		return result, err
	}
	defer os.RemoveAll(dir)
	hello, err := testguest.File("hello-c")
	if err != nil {
		return result, err
	}
	component, err := testguest.Component(hello)
	if err != nil {
		return result, err
	}
	module, err := warmStage(ctx, filepath.Join(dir, "module"), hello)
	if err != nil {
		return result, err
	}
	defer module.close()
	other, err := warmStage(ctx, filepath.Join(dir, "component"), component)
	if err != nil {
		return result, err
	}
	defer other.close()
	for range n {
		if ctx.Err() != nil {
			return result, ctx.Err()
		}
		if err := errors.Join(module.launch(ctx, result.module), other.launch(ctx, result.component)); err != nil {
			return result, err
		}
	}
	return result, nil
}

// warmStage makes dir for a stage and loads its files into memory.
func warmStage(ctx context.Context, dir, program string) (*stage, error) {
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, err
	}
	s, err := newStage(ctx, dir, program)
	if err != nil {
		return nil, err
	}
	if err := s.launch(ctx, samples{}); err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

// newStage compiles a module and prepares to launch it. It uses dir as its own folder.
func newStage(ctx context.Context, dir, module string) (*stage, error) {
	s := &stage{base: filepath.Join(dir, "base"), rootfs: filepath.Join(dir, "rootfs")}
	if err := errors.Join(os.Mkdir(s.base, 0o700), os.Mkdir(s.rootfs, 0o755)); err != nil {
		return nil, err
	}
	var err error
	if s.spec, err = helloSpec(ctx); err != nil {
		return nil, err
	}
	worker, err := testworker.Path()
	if err != nil {
		return nil, err
	}
	code := filepath.Join(dir, "module.cwasm")
	if err := testworker.Compile(ctx, module, code); err != nil {
		return nil, err
	}
	if s.worker, err = os.Open(worker); err == nil {
		s.code, err = os.Open(code)
	}
	if err == nil {
		s.null, err = os.OpenFile(os.DevNull, os.O_RDWR, 0)
	}
	if err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

func (s *stage) close() {
	for _, f := range []*os.File{s.worker, s.code, s.null} {
		if f != nil {
			f.Close()
		}
	}
}

// helloSpec is the specification of containerd's client, as in the rest of the benchmark.
func helloSpec(ctx context.Context) (*specs.Spec, error) {
	ctx = namespaces.WithNamespace(ctx, "bench")
	return oci.GenerateSpec(ctx, nil, &containers.Container{ID: "launch"}, oci.WithProcessArgs("/app.wasm"))
}

// launch does what the shim does for a container, without containerd and without a cgroup.
func (s *stage) launch(ctx context.Context, times samples) error {
	ours, theirs, err := control.Pair()
	if err != nil {
		return err
	}
	defer ours.Close()
	begun := time.Now()
	pid, err := s.start(ctx, theirs.File, s.null)
	theirs.Close()
	if err != nil {
		return err
	}
	launched := time.Now()
	err = s.run(ours, "_start")
	var status unix.WaitStatus
	if _, waitErr := unix.Wait4(pid, &status, 0, nil); waitErr != nil {
		err = errors.Join(err, waitErr)
	}
	exited := time.Now()
	if err != nil || status.ExitStatus() != 0 {
		return fmt.Errorf("the guest ended with %v: %w", status, err)
	}
	times.add(untilLaunched, launched.Sub(begun))
	times.add(untilExit, exited.Sub(launched))
	times.add(launchToExit, exited.Sub(begun))
	return nil
}

// run makes a launched worker call a function of its module.
func (s *stage) run(worker control.Daemon, function string) error {
	err := worker.Run(control.Run{Code: sandbox.CodePath, Root: sandbox.GuestRoot, Args: s.spec.Process.Args, Function: function})
	report, reportErr := worker.Report()
	err = errors.Join(err, reportErr, worker.Start())
	if report.Error != "" {
		err = errors.Join(errors.New(report.Error), err)
	}
	return err
}

func (s *stage) start(ctx context.Context, theirs, stdout *os.File) (int, error) {
	sb, err := sandbox.New(s.base, "")
	if err != nil {
		return 0, err
	}
	defer sb.Close()
	if err := sb.MountRootfs([]sandbox.Mount{{Type: "bind", Source: s.rootfs, Options: []string{"rbind"}}}, s.spec.Root, ""); err != nil {
		return 0, err
	}
	child, err := sb.Launch(ctx, sandbox.Launch{
		Spec: s.spec, Process: s.spec.Process, Worker: s.worker, Code: s.code,
		Argv: s.spec.Process.Args, Env: workerEnv, Files: []*os.File{s.null, stdout, s.null, theirs},
	})
	if err != nil {
		return 0, err
	}
	return child.PID, child.Close()
}

// workerEnv is the environment that the shim gives workers (package shim).
var workerEnv = []string{control.RoleEnv + "=" + control.RoleRun, "GOGC=off", "GOMAXPROCS=2", "GLIBC_TUNABLES=glibc.malloc.arena_max=1", "TOKIO_WORKER_THREADS=1"}

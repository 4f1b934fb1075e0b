package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/containerd/v2/pkg/oci"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/wasmshim/containerd-shim-wasm/internal/repo"
	"github.com/wasmshim/containerd-shim-wasm/internal/testguest"
	"github.com/wasmshim/containerd-shim-wasm/runtime/control"
	"github.com/wasmshim/containerd-shim-wasm/sandbox"
)

// launches are the times of sandboxes launched without containerd, shim or cgroup.
type launches struct {
	samples
	n int
}

const (
	untilLaunched = "launch (the worker is forked)"
	untilExit     = "launched to the guest's exit"
	launchToExit  = "launch to the guest's exit"
)

func (l launches) print(w io.Writer) {
	fmt.Fprintf(w, "sandbox below containerd, without cgroup, n=%d\n", l.n)
	table := newTable(w)
	fmt.Fprintln(table, "ms\tp50\tp95\t")
	for _, what := range []string{untilLaunched, untilExit, launchToExit} {
		fmt.Fprintf(table, "%s\t%.2f\t%.2f\t\n", what, l.quantile(what, 0.5), l.quantile(what, 0.95))
	}
	table.Flush()
	printGoal(w, "launch to the guest's exit, p50", l.quantile(launchToExit, 0.5), "≤", 6, "ms")
}

// stage is what one launch after the other uses.
type stage struct {
	worker, code *os.File
	base, rootfs string
	spec         *specs.Spec
	null         *os.File
}

func measureLaunch(ctx context.Context, n int) (launches, error) {
	result := launches{samples: samples{}, n: n}
	dir, err := os.MkdirTemp("", "bench-")
	if err != nil {
		return result, err
	}
	defer os.RemoveAll(dir)
	s, err := newStage(ctx, dir)
	if err != nil {
		return result, err
	}
	defer s.close()
	if err := s.launch(samples{}); err != nil { // brings the files into memory
		return result, err
	}
	for range n {
		if ctx.Err() != nil {
			return result, ctx.Err()
		}
		if err := s.launch(result.samples); err != nil {
			return result, err
		}
	}
	return result, nil
}

func newStage(ctx context.Context, dir string) (*stage, error) {
	s := &stage{base: filepath.Join(dir, "base"), rootfs: filepath.Join(dir, "rootfs")}
	if err := errors.Join(os.Mkdir(s.base, 0o700), os.Mkdir(s.rootfs, 0o755)); err != nil {
		return nil, err
	}
	var err error
	if s.spec, err = helloSpec(ctx); err != nil {
		return nil, err
	}
	root, err := repo.Root()
	if err != nil {
		return nil, err
	}
	s.worker, err = os.Open(filepath.Join(root, "cmd", "containerd-shim-wasm-v1", "programs", "wasm-worker"))
	if err != nil {
		return nil, fmt.Errorf("%w: make build makes it", err)
	}
	s.code, err = precompile(ctx, s.worker.Name(), filepath.Join(dir, "hello.cwasm"))
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

// helloSpec is what containerd's client asks for, as in the rest of the benchmark.
func helloSpec(ctx context.Context) (*specs.Spec, error) {
	ctx = namespaces.WithNamespace(ctx, "bench")
	return oci.GenerateSpec(ctx, nil, &containers.Container{ID: "launch"}, oci.WithProcessArgs("/app.wasm"))
}

// precompile has a worker compile hello world into the file at path.
func precompile(ctx context.Context, worker, path string) (*os.File, error) {
	hello, err := testguest.File("hello-c")
	if err != nil {
		return nil, err
	}
	module, err := os.Open(hello)
	if err != nil {
		return nil, err
	}
	defer module.Close()
	out, err := os.Create(path)
	if err != nil {
		return nil, err
	}
	defer out.Close()
	ours, theirs, err := socketPair()
	if err != nil {
		return nil, err
	}
	defer ours.Close()
	command := exec.CommandContext(ctx, worker)
	command.Env = []string{control.RoleEnv + "=" + control.RoleCompile}
	command.Stdin, command.Stdout, command.Stderr = module, out, os.Stderr
	command.ExtraFiles = []*os.File{theirs}
	err = command.Start()
	theirs.Close()
	if err != nil {
		return nil, err
	}
	var report control.Report
	err = errors.Join(control.Send(ours, control.Compile{Name: "hello", MaxSize: 1 << 30}), control.Receive(ours, &report), command.Wait())
	if err != nil || report.Error != "" {
		return nil, fmt.Errorf("compile hello world: %s: %w", report.Error, err)
	}
	return os.Open(path)
}

func socketPair() (ours, theirs *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, err
	}
	return os.NewFile(uintptr(fds[0]), "control"), os.NewFile(uintptr(fds[1]), "worker's control"), nil
}

// launch does below containerd what the shim does for a container, but for the cgroup.
func (s *stage) launch(times samples) error {
	ours, theirs, err := socketPair()
	if err != nil {
		return err
	}
	defer ours.Close()
	begun := time.Now()
	pid, err := s.start(theirs)
	theirs.Close()
	if err != nil {
		return err
	}
	launched := time.Now()
	var report control.Report
	err = errors.Join(
		control.Send(ours, control.Guest{Module: sandbox.Module, Root: sandbox.GuestRoot, Args: s.spec.Process.Args, Function: "_start"}),
		control.Receive(ours, &report),
		control.SendStart(ours),
	)
	var status unix.WaitStatus
	if _, waitErr := unix.Wait4(pid, &status, 0, nil); waitErr != nil {
		err = errors.Join(err, waitErr)
	}
	exited := time.Now()
	if err != nil || report.Error != "" || status.ExitStatus() != 0 {
		return fmt.Errorf("hello world ended with %v: %s: %w", status, report.Error, err)
	}
	times.add(untilLaunched, launched.Sub(begun))
	times.add(untilExit, exited.Sub(launched))
	times.add(launchToExit, exited.Sub(begun))
	return nil
}

func (s *stage) start(control *os.File) (int, error) {
	sb, err := sandbox.New(s.base, "")
	if err != nil {
		return 0, err
	}
	defer sb.Close()
	if err := sb.MountRootfs([]sandbox.Mount{{Type: "bind", Source: s.rootfs, Options: []string{"rbind"}}}, s.spec.Root, ""); err != nil {
		return 0, err
	}
	child, err := sb.Launch(sandbox.Launch{
		Spec: s.spec, Process: s.spec.Process, Worker: s.worker, Module: s.code,
		Argv: s.spec.Process.Args, Env: workerEnv, Files: []*os.File{s.null, s.null, s.null, control},
	})
	return child.PID, err
}

// workerEnv is what the shim gives workers (package shim).
var workerEnv = []string{control.RoleEnv + "=" + control.RoleRun, "GOGC=off", "GOMAXPROCS=2", "GLIBC_TUNABLES=glibc.malloc.arena_max=1"}

package module

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"github.com/sirupsen/logrus"
	"golang.org/x/sys/unix"

	"github.com/wasmshim/containerd-shim-wasm/children"
	"github.com/wasmshim/containerd-shim-wasm/module/cache"
	"github.com/wasmshim/containerd-shim-wasm/sandbox"
	"github.com/wasmshim/containerd-shim-wasm/sandbox/cgroup"
	"github.com/wasmshim/containerd-shim-wasm/worker/control"
)

// preparerSpec returns a specification that confines the preparer: no files but its own program, no network,
// no capabilities, the user nobody. The preparer may write at most mostCode bytes, if that is not 0.
func preparerSpec(at location, limits *specs.LinuxResources, mostCode int64) *specs.Spec {
	// Its output was in its memory before, so it needs no more than that.
	most := uint64(*limits.Memory.Limit)
	if mostCode > 0 {
		most = min(most, uint64(mostCode))
	}
	// If a limit of the whole pod is exceeded, the kernel must kill the preparer, not the pod's containers.
	first := 1000
	return &specs.Spec{
		Process: &specs.Process{
			User: specs.User{UID: 65534, GID: 65534}, NoNewPrivileges: true, OOMScoreAdj: &first,
			Rlimits: []specs.POSIXRlimit{
				{Type: "RLIMIT_FSIZE", Hard: most, Soft: most},
				// It opens no files: it gets four descriptors, and its engine waits on the rest.
				{Type: "RLIMIT_NOFILE", Hard: 32, Soft: 32},
				{Type: "RLIMIT_CORE"},
			},
		},
		Linux: &specs.Linux{
			CgroupsPath: at.CgroupsPath,
			Resources:   limits,
			Namespaces: []specs.LinuxNamespace{
				{Type: specs.PIDNamespace}, {Type: specs.IPCNamespace}, {Type: specs.UTSNamespace}, {Type: specs.NetworkNamespace},
			},
		},
	}
}

// prepare makes a preparer compile module into out: a confined process in its payer's cgroup, with a memory
// and a time limit, so that a hostile module harms neither the daemon nor the node.
func (j *job) prepare(ctx context.Context, module, out *os.File) (*control.Module, error) {
	ctx, cancel := context.WithTimeout(ctx, j.settings.CompileTimeout)
	defer cancel()
	at, limits := j.payer.location(), j.payer.limits(j.settings)
	if err := j.turn.note(at); err != nil {
		return nil, err
	}
	spec := preparerSpec(at, limits, j.mostCode)
	cg, err := cgroup.New(preparerName, spec, at.Systemd)
	if err != nil {
		return nil, fmt.Errorf("limit the preparer: %w", err)
	}
	defer func() {
		if err := cg.Destroy(); err != nil {
			j.loader.Log.WithError(err).Warn("remove the preparer's cgroup: it is left empty")
		}
	}()
	if _, err := module.Seek(0, io.SeekStart); err != nil {
		return nil, fmt.Errorf("rewind module: %w", err)
	}
	p := preparer{job: j, spec: spec, cgroup: cg}
	began := time.Now()
	report, status, err := p.run(ctx, module, out)
	if err == nil && ctx.Err() == nil && report.Refusal == "" && report.Error == "" && report.Module != nil && status == 0 {
		report.Module.Name, report.Module.Tenant = module.Name(), j.payer.Tenant
		j.loader.Log.WithFields(logrus.Fields{"module": module.Name(), "sha256": j.digest, "seconds": time.Since(began).Seconds()}).Info("compiled")
		return report.Module, nil
	}
	return nil, p.explain(ctx, report, status, err)
}

// preparer compiles one module.
type preparer struct {
	*job
	spec   *specs.Spec
	cgroup *cgroup.Cgroup
}

// explain returns the reason why a preparer has made no code.
func (p preparer) explain(ctx context.Context, report control.Report, status int, err error) error {
	name := p.from.file.Name()
	switch {
	case errors.Is(ctx.Err(), context.Canceled):
		return fmt.Errorf("compile module %s: called off: %w", name, ctx.Err())
	case ctx.Err() != nil:
		return fmt.Errorf("module %s takes longer than %s to compile%s", name, p.settings.CompileTimeout, p.payer.moreTime(p.settings))
	case report.Refusal != "":
		return &cache.Refused{Reason: report.Refusal}
	case report.Error != "":
		return report.Err()
	}
	kills, _ := p.cgroup.OOMKills()
	crowded := p.cgroup.CheckRoom(control.LeastThreads)
	switch {
	case kills > 0 || status == 134 && crowded == nil:
		return fmt.Errorf("module %s needs more than %d bytes of memory to compile%s", name, *p.spec.Linux.Resources.Memory.Limit, p.payer.moreMemory(p.settings))
	case crowded != nil:
		return fmt.Errorf("compile module %s: %w", name, crowded)
	case err == nil:
		err = errors.New("it reported no module")
	}
	return fmt.Errorf("compile module %s: the preparer ended with status %d: %w", name, status, err)
}

// run returns the preparer's report and its exit status.
func (p preparer) run(ctx context.Context, module, out *os.File) (control.Report, int, error) {
	child, daemon, err := p.launch(ctx, module, out)
	if err != nil {
		return control.Report{}, 0, err
	}
	defer daemon.Close()
	defer child.Close()
	stop := context.AfterFunc(ctx, func() { _ = child.Signal(unix.SIGKILL) })
	defer stop()
	var report control.Report
	if err = daemon.Compile(p.order()); err == nil {
		report, err = daemon.Report()
	}
	if err != nil {
		_ = child.Signal(unix.SIGKILL)
	}
	end := child.AwaitExit()
	child.Reap()
	return report, end.Status, err
}

// launch returns the preparer, which waits for its order, and our end of the connection with it.
func (p preparer) launch(ctx context.Context, module, out *os.File) (children.Child, control.Daemon, error) {
	var none children.Child
	sb, err := sandbox.New(p.loader.StateDir, "")
	if err != nil {
		return none, control.Daemon{}, err
	}
	defer sb.Close()
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return none, control.Daemon{}, err
	}
	defer null.Close()
	ours, theirs, err := control.Pair()
	if err != nil {
		return none, control.Daemon{}, err
	}
	defer theirs.Close()
	child, err := children.Launch(ctx, sb, sandbox.Launch{
		Spec: p.spec, Process: p.spec.Process, Worker: p.engine.worker,
		Argv:  []string{"wasm-preparer", p.from.file.Name()},
		Env:   []string{control.RoleEnv + "=" + control.RoleCompile, fmt.Sprintf("%s=%d", control.CompileThreadsEnv, min(runtime.NumCPU(), control.MostCompileThreads))},
		Files: []*os.File{module, out, null, theirs.File},
		Limit: p.limit,
	})
	if err != nil {
		ours.Close()
		return none, control.Daemon{}, err
	}
	return child, ours, nil
}

// limit puts the preparer's process under its limits.
func (p preparer) limit(pid int) error {
	if err := p.cgroup.Add(pid); err != nil {
		return err
	}
	return sandbox.Limit(pid, p.spec.Process)
}

package shim

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"github.com/sirupsen/logrus"
	"golang.org/x/sys/unix"

	"github.com/wasmshim/containerd-shim-wasm/runtime/cache"
	"github.com/wasmshim/containerd-shim-wasm/runtime/control"
	"github.com/wasmshim/containerd-shim-wasm/sandbox"
	"github.com/wasmshim/containerd-shim-wasm/sandbox/cgroup"
)

// job is a module whose machine code is wanted.
type job struct {
	engine   engine
	settings settings
	payer    account
	from     source
	// function is the one to be called, nil if nobody has said.
	function *string
	// begin is called with the module's key in the cache before it is compiled.
	begin func(key string)
	// mostCode bounds the machine code, in bytes, if it is not 0; see cache.Uncached.
	mostCode int64
	// made reports whether somebody else has compiled the module meanwhile, nil if nobody can have.
	made func() bool
}

// compiled returns the machine code of a job's module, from the cache or, the first
// time, from the preparer. The caller closes the entry when a worker has been launched.
func (n *node) compiled(ctx context.Context, j job) (_ cache.Entry, err error) {
	n.sweepOnce.Do(func() { go n.sweep(j.settings.CacheDir) })
	if err := j.settings.checkSize(j.from); err != nil {
		return cache.Entry{}, err
	}
	digest, err := n.digest(ctx, j)
	if err != nil {
		return cache.Entry{}, err
	}
	compiled, err := n.load(ctx, j, digest)
	var refused *cache.Refused
	if errors.As(err, &refused) {
		return cache.Entry{}, fmt.Errorf("%s %w", j.from.file.Name(), refused)
	}
	if err != nil {
		return cache.Entry{}, err
	}
	if err := check(compiled.Module, j.order(digest)); err != nil {
		compiled.Close()
		return cache.Entry{}, err
	}
	return compiled, nil
}

// compileFrozen compiles, in a turn, what was hashed, whatever happens to the file meanwhile.
func (n *node) compileFrozen(ctx context.Context, j job, turn *turn, digest string, out *os.File) (*control.Module, error) {
	module, err := j.from.freeze(ctx, digest, j.settings.CacheDir)
	if err != nil {
		return nil, err
	}
	defer module.Close()
	if err := turn.takeNodes(ctx); err != nil {
		return nil, fmt.Errorf("module %s: %w", module.Name(), err)
	}
	// Replicas wait here for the turns of the one that has been compiling.
	if j.made != nil && j.made() {
		return nil, cache.ErrMade
	}
	return n.compile(ctx, j, turn, j.order(digest), module, out)
}

// uncachedDir is where code lies that cannot be cached, below the folder for
// sockets, which is in memory.
const uncachedDir = "uncached"

// load returns an entry of the cache. Where that cannot be written, or somebody else
// has been changing the entry for long, the module is compiled for this one container.
func (n *node) load(ctx context.Context, j job, digest string) (cache.Entry, error) {
	key, dir := j.from.key(digest), j.settings.CacheDir
	var held *turn
	endTurn := func() {
		if held != nil {
			held.end()
		}
		held = nil
	}
	defer endTurn()
	compile := func(ctx context.Context, out *os.File) (_ *control.Module, err error) {
		j.begin(key)
		if held, err = n.takeTurn(ctx, j.payer, j.settings); err != nil {
			return nil, fmt.Errorf("module %s: %w", j.from.file.Name(), err)
		}
		return n.compileFrozen(ctx, j, held, digest, out)
	}
	modules, err := cache.Open(dir, j.engine.key)
	if err == nil {
		j.made = func() bool { return modules.Has(key) }
		var loaded cache.Entry
		loaded, err = modules.Load(ctx, key, compile)
		endTurn() // whose turn is next finds the entry
		if err == nil {
			if loaded.Compiled {
				go n.trim(j.settings)
			}
			return loaded, nil
		}
	}
	var refused *cache.Refused
	switch {
	case errors.As(err, &refused):
		return cache.Entry{}, refused
	case errors.Is(err, cache.ErrHeld):
		n.log.WithError(err).Warn("the module is compiled for this container alone")
	case cache.Unusable(err):
		n.log.WithError(err).Warnf("the compile cache in %s cannot be written: the module is compiled for this container alone", dir)
	default:
		return cache.Entry{}, err
	}
	return cache.Uncached(ctx, filepath.Join(n.stateDir, uncachedDir), key, func(ctx context.Context, out *os.File, room int64) (*control.Module, error) {
		j.made = nil
		// Others may be compiling, too.
		j.mostCode = max(1, room/int64(j.settings.MaxCompilations))
		return compile(ctx, out)
	})
}

// trimLimit bounds the wait for another shim that is cleaning up.
const trimLimit = time.Minute

// trim keeps the cache within its limit. Nothing depends on that it succeeds, and no
// container waits for it.
func (n *node) trim(s settings) {
	ctx, cancel := context.WithTimeout(context.Background(), trimLimit)
	defer cancel()
	removed, _, err := cache.Trim(ctx, s.CacheDir, s.CacheSize, nil)
	if err != nil {
		n.log.WithError(err).Warn("clean up the compile cache")
	}
	if len(removed) > 0 {
		n.log.WithField("removed", len(removed)).Info("the compile cache was full")
	}
}

// sweep removes what shims that were killed have left, at a daemon's first
// container.
func (n *node) sweep(cacheDir string) {
	err := errors.Join(cache.Sweep(cacheDir), cache.SweepUncached(filepath.Join(n.stateDir, uncachedDir)))
	if err != nil && !cache.Unusable(err) {
		n.log.WithError(err).Warn("clean up after a dead shim")
	}
}

// order is what a preparer is told about a job's module.
func (j job) order(digest string) control.Compile {
	return control.Compile{
		Name: j.from.file.Name(), Digest: digest, Compression: j.from.compression, MaxSize: j.settings.MaxModuleSize,
		Trusted: j.settings.trusts(digest), Config: j.settings.source, Function: j.function,
	}
}

// check fails if a compiled module is not to be run, or not as ordered.
func check(module control.Module, order control.Compile) error {
	// The operator may have taken back what was allowed when the entry was made.
	if module.Precompiled && !order.Trusted {
		return order.Distrust()
	}
	return module.Check(order)
}

// preparerSpec confines the preparer: no files but its own program, no network,
// no capabilities, nobody's user. It may write no more than mostCode bytes, if that is not 0.
func preparerSpec(at place, limits *specs.LinuxResources, mostCode int64) *specs.Spec {
	// What it writes it has had in memory.
	most := uint64(*limits.Memory.Limit)
	if mostCode > 0 {
		most = min(most, uint64(mostCode))
	}
	// If a limit of the whole pod is exceeded, this is to be killed, not the pod's containers.
	first := 1000
	return &specs.Spec{
		Process: &specs.Process{
			User: specs.User{UID: 65534, GID: 65534}, NoNewPrivileges: true, OOMScoreAdj: &first,
			Rlimits: []specs.POSIXRlimit{
				{Type: "RLIMIT_FSIZE", Hard: most, Soft: most},
				// It opens nothing: four are given to it, the rest are what its engine waits on.
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

// compile has a preparer compile module into out: a confined process in the cgroup of who pays
// for it, with a memory and a time limit, so that a hostile module harms neither the
// daemon nor the node.
func (n *node) compile(ctx context.Context, j job, turn *turn, order control.Compile, module, out *os.File) (*control.Module, error) {
	s, payer := j.settings, j.payer
	ctx, cancel := context.WithTimeout(ctx, s.CompileTimeout)
	defer cancel()
	at, limits := payer.place(), payer.limits(s)
	if err := turn.note(at); err != nil {
		return nil, err
	}
	spec := preparerSpec(at, limits, j.mostCode)
	cg, err := n.newCgroup(preparerName, spec, at.Systemd)
	if err != nil {
		return nil, fmt.Errorf("limit the preparer: %w", err)
	}
	defer func() {
		if err := cg.Destroy(); err != nil {
			n.log.WithError(err).Warn("remove the preparer's cgroup")
		}
	}()
	if _, err := module.Seek(0, io.SeekStart); err != nil {
		return nil, fmt.Errorf("rewind module: %w", err)
	}
	began := time.Now()
	report, status, err := n.runPreparer(ctx, j.engine, spec, cg, order, module, out)
	switch {
	case errors.Is(ctx.Err(), context.Canceled):
		return nil, fmt.Errorf("compile module %s: called off: %w", module.Name(), ctx.Err())
	case ctx.Err() != nil:
		return nil, fmt.Errorf("module %s takes longer than %s to compile%s", module.Name(), s.CompileTimeout, payer.moreTime(s))
	case report.Refusal != "":
		return nil, &cache.Refused{Reason: report.Refusal}
	case report.Error != "":
		return nil, report.Err()
	case err == nil && report.Module != nil && status == 0:
		report.Module.Name, report.Module.Tenant = module.Name(), payer.tenant
		n.log.WithFields(logrus.Fields{"module": module.Name(), "sha256": order.Digest, "seconds": time.Since(began).Seconds()}).Info("compiled")
		return report.Module, nil
	}
	kills, _ := cg.OOMKills()
	crowded := crowded(cg)
	switch {
	case kills > 0 || status == 134 && crowded == nil:
		return nil, fmt.Errorf("module %s needs more than %d bytes of memory to compile%s", module.Name(), *limits.Memory.Limit, payer.moreMemory(s))
	case crowded != nil:
		return nil, fmt.Errorf("compile module %s: %w", module.Name(), crowded)
	}
	if err == nil {
		err = errors.New("it reported no module")
	}
	return nil, fmt.Errorf("compile module %s: the preparer ended with status %d: %w", module.Name(), status, err)
}

func (n *node) runPreparer(ctx context.Context, engine engine, spec *specs.Spec, cg *cgroup.Cgroup, order control.Compile, module, out *os.File) (control.Report, int, error) {
	var report control.Report
	sb, err := sandbox.New(n.stateDir, "")
	if err != nil {
		return report, 0, err
	}
	defer sb.Close()
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return report, 0, err
	}
	defer null.Close()
	ours, theirs, err := control.Pair()
	if err != nil {
		return report, 0, err
	}
	defer ours.Close()
	child, err := launchChild(ctx, sb, sandbox.Launch{
		Spec: spec, Process: spec.Process, Worker: engine.worker,
		Argv:  []string{"wasm-preparer", order.Name},
		Env:   []string{control.RoleEnv + "=" + control.RoleCompile, fmt.Sprintf("%s=%d", control.CompileThreadsEnv, min(runtime.NumCPU(), control.MostCompileThreads))},
		Files: []*os.File{module, out, null, theirs},
		Limit: func(pid int) error {
			if err := cg.Add(pid); err != nil {
				return err
			}
			return sandbox.Limit(pid, spec.Process)
		},
	})
	theirs.Close()
	if err != nil {
		return report, 0, err
	}
	defer child.Handle.Close()
	stop := context.AfterFunc(ctx, func() { _ = child.Signal(unix.SIGKILL) })
	defer stop()
	if err = control.Send(ours, order); err == nil {
		err = control.Receive(ours, &report)
	}
	if err != nil {
		_ = child.Signal(unix.SIGKILL)
	}
	end := child.reap(child.awaitExit())
	return report, end.status, err
}

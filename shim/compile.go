package shim

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"github.com/sirupsen/logrus"
	"golang.org/x/sys/unix"

	"github.com/wasmshim/containerd-shim-wasm/entrypoint"
	"github.com/wasmshim/containerd-shim-wasm/runtime/cache"
	"github.com/wasmshim/containerd-shim-wasm/runtime/control"
	"github.com/wasmshim/containerd-shim-wasm/sandbox"
	"github.com/wasmshim/containerd-shim-wasm/sandbox/cgroup"
)

// compiled returns the machine code for a module, from the cache or, the first
// time, from the preparer; then it calls begin first. The caller closes the entry
// when a worker has been launched.
func (n *node) compiled(ctx context.Context, engine engine, s settings, payer account, from source, entry entrypoint.Point, begin func(key string)) (cache.Entry, error) {
	n.sweepOnce.Do(func() { go n.sweep(s.CacheDir) })
	compiled, digest, err := n.entry(ctx, engine, s, payer, from, begin)
	if err != nil {
		return cache.Entry{}, err
	}
	if err := check(compiled.Module, s.order(from, digest), entry); err != nil {
		compiled.Close()
		return cache.Entry{}, err
	}
	return compiled, nil
}

// entry is compiled without its checks of what a container wants of the module. It
// returns the digest of the source's file, too.
func (n *node) entry(ctx context.Context, engine engine, s settings, payer account, from source, begin func(key string)) (_ cache.Entry, digest string, err error) {
	if err := s.checkSize(from); err != nil {
		return cache.Entry{}, "", err
	}
	if digest, err = n.digest(ctx, from, s.CacheDir); err != nil {
		return cache.Entry{}, "", err
	}
	key := from.key(digest)
	compiled, err := n.load(ctx, engine, s, key, func(ctx context.Context, out *os.File) (*control.Module, error) {
		begin(key)
		return n.compileFrozen(ctx, engine, s, payer, from, digest, out)
	})
	return compiled, digest, err
}

// compileFrozen compiles what was hashed, whatever happens to the file meanwhile.
func (n *node) compileFrozen(ctx context.Context, engine engine, s settings, payer account, from source, digest string, out *os.File) (*control.Module, error) {
	// The copy comes before the turn: a volume may keep us waiting for ever.
	module, err := from.freeze(ctx, digest, s.CacheDir)
	if err != nil {
		return nil, err
	}
	defer module.Close()
	turn, err := n.takeTurn(ctx, payer, s)
	if err != nil {
		return nil, fmt.Errorf("module %s: %w", module.Name(), err)
	}
	defer turn.end()
	return n.compile(ctx, engine, s, payer, turn, s.order(from, digest), module, out)
}

// uncachedDir is where code lies that cannot be cached, below the folder for
// sockets, which is in memory.
const uncachedDir = "uncached"

// load returns an entry of the cache. Where that cannot be written, or somebody else
// has been at work on the entry for long, the module is compiled for this one container.
func (n *node) load(ctx context.Context, engine engine, s settings, key string, compile cache.Compiler) (cache.Entry, error) {
	modules, err := cache.Open(s.CacheDir, engine.key)
	if err == nil {
		var loaded cache.Entry
		if loaded, err = modules.Load(ctx, key, compile); err == nil {
			if loaded.Compiled {
				go n.trim(s)
			}
			return loaded, nil
		}
	}
	switch {
	case errors.Is(err, cache.ErrHeld):
		n.log.WithError(err).Warn("the module is compiled for this container alone")
	case cache.Unusable(err):
		n.log.WithError(err).Warnf("the compile cache in %s cannot be written: the module is compiled for this container alone", s.CacheDir)
	default:
		return cache.Entry{}, err
	}
	return cache.Uncached(ctx, filepath.Join(n.stateDir, uncachedDir), key, compile)
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

// order is what a preparer is told about a module.
func (s settings) order(from source, digest string) control.Compile {
	return control.Compile{
		Name: from.file.Name(), Digest: digest, Compression: from.compression, MaxSize: s.MaxModuleSize,
		Trusted: s.trusts(digest), Config: s.source,
	}
}

// check fails if a compiled module is not to be run, or not from this entry point.
func check(module control.Module, order control.Compile, entry entrypoint.Point) error {
	// The operator may have taken back what was allowed when the entry was made.
	if module.Precompiled && !order.Trusted {
		return order.Distrust()
	}
	return checkFunction(module, order.Name, entry.Function)
}

// preparerSpec confines the preparer: no files but its own program, no network,
// no capabilities, nobody's user.
func preparerSpec(at place, limits *specs.LinuxResources) *specs.Spec {
	// If a limit of the whole pod is exceeded, this is to be killed, not the pod's containers.
	first := 1000
	return &specs.Spec{
		Process: &specs.Process{
			User: specs.User{UID: 65534, GID: 65534}, NoNewPrivileges: true, OOMScoreAdj: &first,
			// What it writes it has had in memory.
			Rlimits: []specs.POSIXRlimit{{Type: "RLIMIT_FSIZE", Hard: uint64(*limits.Memory.Limit), Soft: uint64(*limits.Memory.Limit)}},
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
func (n *node) compile(ctx context.Context, engine engine, s settings, payer account, turn *turn, order control.Compile, module, out *os.File) (*control.Module, error) {
	ctx, cancel := context.WithTimeout(ctx, s.CompileTimeout)
	defer cancel()
	at, limits := payer.place(), payer.limits(s)
	if err := turn.note(at); err != nil {
		return nil, err
	}
	spec := preparerSpec(at, limits)
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
	report, status, err := n.runPreparer(ctx, engine, spec, cg, order, module, out)
	switch {
	case errors.Is(ctx.Err(), context.Canceled):
		return nil, fmt.Errorf("compile module %s: called off: %w", module.Name(), ctx.Err())
	case ctx.Err() != nil:
		return nil, fmt.Errorf("module %s takes longer than %s to compile%s", module.Name(), s.CompileTimeout, payer.moreTime(s))
	case report.Error != "":
		return nil, report.Err()
	case err == nil && report.Module != nil && status == 0:
		report.Module.Name = module.Name()
		n.log.WithFields(logrus.Fields{"module": module.Name(), "sha256": order.Digest, "seconds": time.Since(began).Seconds()}).Info("compiled")
		return report.Module, nil
	}
	if kills, _ := cg.OOMKills(); kills > 0 || status == 134 {
		return nil, fmt.Errorf("module %s needs more than %d bytes of memory to compile%s", module.Name(), *limits.Memory.Limit, payer.moreMemory(s))
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
		Env:   []string{control.RoleEnv + "=" + control.RoleCompile},
		Files: []*os.File{module, out, null, theirs},
	})
	theirs.Close()
	if err != nil {
		return report, 0, err
	}
	defer child.Handle.Close()
	stop := context.AfterFunc(ctx, func() { _ = child.Signal(unix.SIGKILL) })
	defer stop()
	if err = cg.Add(child.PID); err == nil {
		err = control.Send(ours, order)
	}
	if err == nil {
		err = control.Receive(ours, &report)
	}
	if err != nil {
		_ = child.Signal(unix.SIGKILL)
	}
	end := child.reap(child.awaitExit())
	return report, end.status, err
}

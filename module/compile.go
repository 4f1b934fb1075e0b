package module

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/wasmshim/containerd-shim-wasm/config"
	"github.com/wasmshim/containerd-shim-wasm/module/cache"
	"github.com/wasmshim/containerd-shim-wasm/worker/control"
)

// Request asks for the machine code of a module.
type Request struct {
	// Source is a result of Open.
	Source   Source
	Settings config.Config
	Payer    Account
	// Keep asks to keep the code with the container's image, see Code.Keep.
	Keep bool
}

// Code is the machine code of a module. The caller closes it after the launch of a worker, which then holds
// the code itself.
type Code struct {
	// File holds the code.
	File *os.File

	entry  cache.Entry
	keeper *keeper
}

// Close releases the code. It stays in the cache.
func (c *Code) Close() error { return c.entry.Close() }

// Load returns the machine code of a module, from the cache or, the first time, from a preparer.
func (c *Container) Load(ctx context.Context, r Request) (*Code, error) {
	engine, err := c.loader.prepareEngine()
	if err != nil {
		return nil, err
	}
	j := &job{loader: c.loader, engine: engine, settings: r.Settings, payer: r.Payer, from: r.Source}
	if r.Keep && len(c.about.Rootfs) > 0 { // a container without layers has no image
		j.keeper = &keeper{container: c, settings: r.Settings, from: r.Source}
	}
	entry, err := j.run(ctx)
	if err != nil {
		j.keeper.cancel()
		return nil, err
	}
	if j.keeper != nil && !entry.Known(j.keeper.imageKey()) {
		j.keeper.start(entry.Digest)
	}
	return &Code{File: entry.Code, entry: entry, keeper: j.keeper}, nil
}

// job takes one module from its source to an entry of the cache.
type job struct {
	loader   *Loader
	engine   engine
	settings config.Config
	payer    Account
	from     Source
	keeper   *keeper // nil if the code is not to be kept
	digest   string  // of the source's file, in hex

	// turn is the turn to compile, nil outside of it.
	turn *turn
	// mostCode bounds the machine code, in bytes, if it is not 0; see cache.Uncached.
	mostCode int64
	// made reports whether another job has compiled the module meanwhile, nil if none can have.
	made func() bool
}

// run returns the entry. The caller closes it.
func (j *job) run(ctx context.Context) (cache.Entry, error) {
	l := j.loader
	l.sweepOnce.Do(func() { go l.sweep(j.settings.CacheDir) })
	if err := j.from.checkSize(j.settings); err != nil {
		return cache.Entry{}, err
	}
	var err error
	if j.digest, err = j.hash(ctx); err != nil {
		return cache.Entry{}, err
	}
	entry, err := j.load(ctx)
	var refused *cache.Refused
	if errors.As(err, &refused) {
		return cache.Entry{}, fmt.Errorf("%s %w", j.from.file.Name(), refused)
	}
	if err != nil {
		return cache.Entry{}, err
	}
	if err := check(entry.Module, j.order()); err != nil {
		entry.Close()
		return cache.Entry{}, err
	}
	return entry, nil
}

// uncachedDir is the folder for code that cannot be cached, below StateDir, which is in memory.
const uncachedDir = "uncached"

// load returns an entry of the cache. If the cache cannot be written, or another process has held the entry
// for long, load compiles the module for this one container.
func (j *job) load(ctx context.Context) (cache.Entry, error) {
	entry, err := j.loadCached(ctx)
	var refused *cache.Refused
	switch {
	case err == nil:
		return entry, nil
	case errors.As(err, &refused):
		return cache.Entry{}, refused
	case errors.Is(err, cache.ErrHeld):
		j.loader.Log.WithError(err).Warn("the module is compiled for this container alone")
	case cache.Unusable(err):
		j.loader.Log.WithError(err).Warnf("the compile cache in %s cannot be written: the module is compiled for this container alone", j.settings.CacheDir)
	default:
		return cache.Entry{}, err
	}
	return j.loadUncached(ctx)
}

func (j *job) loadCached(ctx context.Context) (cache.Entry, error) {
	defer j.endTurn() // the next in turn finds the entry
	modules, err := cache.Open(j.settings.CacheDir, j.engine.key)
	if err != nil {
		return cache.Entry{}, err
	}
	j.made = func() bool { return modules.Has(j.key()) }
	entry, err := modules.Load(ctx, j.key(), j.compile)
	if err == nil && entry.Compiled {
		go j.loader.trim(j.settings)
	}
	return entry, err
}

func (j *job) loadUncached(ctx context.Context) (cache.Entry, error) {
	defer j.endTurn()
	j.made = nil
	dir := filepath.Join(j.loader.StateDir, uncachedDir)
	return cache.Uncached(ctx, dir, j.key(), func(ctx context.Context, out *os.File, room int64) (*control.Module, error) {
		// Other jobs may compile at the same time.
		j.mostCode = max(1, room/int64(j.settings.MaxCompilations))
		return j.compile(ctx, out)
	})
}

// key names the module in the cache.
func (j *job) key() string { return j.from.key(j.digest) }

// compile waits for a turn, which the job keeps afterwards, and compiles the module into out.
func (j *job) compile(ctx context.Context, out *os.File) (*control.Module, error) {
	j.keeper.start(j.key())
	var err error
	if j.turn, err = j.loader.takeTurn(ctx, j.payer, j.settings); err != nil {
		return nil, fmt.Errorf("module %s: %w", j.from.file.Name(), err)
	}
	return j.compileFrozen(ctx, out)
}

func (j *job) endTurn() {
	if j.turn != nil {
		j.turn.end()
	}
	j.turn = nil
}

// compileFrozen compiles, in a turn, the bytes that were hashed, even if the file changes meanwhile.
func (j *job) compileFrozen(ctx context.Context, out *os.File) (*control.Module, error) {
	module, err := j.from.freeze(ctx, j.digest, j.settings.CacheDir)
	if err != nil {
		return nil, err
	}
	defer module.Close()
	if err := j.turn.takeNodeTurn(ctx); err != nil {
		return nil, fmt.Errorf("module %s: %w", module.Name(), err)
	}
	// Replicas wait in takeNodeTurn while one of them compiles, and then find its entry.
	if j.made != nil && j.made() {
		return nil, cache.ErrMade
	}
	return j.prepare(ctx, module, out)
}

// order returns the description of the module for a preparer.
func (j *job) order() control.Compile {
	return control.Compile{
		Name: j.from.file.Name(), Digest: j.digest, Compression: j.from.compression, MaxSize: j.settings.MaxModuleSize,
		Trusted: trusts(j.settings, j.digest), Config: j.settings.Source, Function: j.from.function,
	}
}

// check fails if the code of a module must not run, or not as ordered.
func check(module control.Module, order control.Compile) error {
	// The operator may have withdrawn the permission that the entry had when it was made.
	if module.Precompiled && !order.Trusted {
		return order.Distrust()
	}
	return module.Check(order)
}

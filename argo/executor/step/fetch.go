package step

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"github.com/wasmshim/containerd-shim-wasm/argo/executor"
	"github.com/wasmshim/containerd-shim-wasm/argo/executor/artifact"
	"github.com/wasmshim/containerd-shim-wasm/artifact/archive"
)

// Fetch loads the input artifacts that the pod's init container has left for later, into what the kubelet has mounted for
// them. It runs in the wait container, before the main container is created.
func Fetch(ctx context.Context, pod Pod) error {
	unix.Umask(0)
	s, err := pod.begin()
	if err != nil {
		return err
	}
	p, err := s.planner()
	if err != nil {
		return err
	}
	lazy := s.template.Lazy()
	errs := make([]error, len(lazy))
	each(len(lazy), atOnce, func(i int) { errs[i] = p.fetch(ctx, lazy[i]) })
	return errors.Join(errs...)
}

func (p planner) fetch(ctx context.Context, a executor.Artifact) error {
	if loaded, err := p.isLoaded(a); loaded || err != nil {
		return err
	}
	one, err := p.plan(ctx, a)
	if optionalMissing(a, err) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := p.load(ctx, one); err != nil {
		return fmt.Errorf("artifact %s failed to load: %w", a.Name, err)
	}
	p.Log.Info("loaded an input artifact", "name", a.Name, "path", a.Path)
	return nil
}

func (p planner) load(ctx context.Context, one planned) error {
	switch {
	case one.is.Kind == archive.Unknown:
		return errors.New(one.is.Reason)
	case one.is.Kind != archive.Plain:
		return p.loadArchive(ctx, one)
	}
	store, err := p.openStore(one.Location)
	if err != nil {
		return err
	}
	if one.isFolder() {
		return p.loadFolder(ctx, one.Artifact, store)
	}
	return p.loadFile(ctx, one.Artifact, store)
}

func (p planner) loadArchive(ctx context.Context, one planned) error {
	into, err := p.unpacked(one)
	if err != nil {
		return err
	}
	defer into.Close()
	return into.Unpack(ctx, one.object, one.size())
}

func (s *step) loadFolder(ctx context.Context, a executor.Artifact, store artifact.Store) error {
	to, err := os.OpenRoot(s.Root + mainFiles + a.Path)
	if err != nil {
		return err
	}
	defer to.Close()
	if err := store.Load(ctx, to, "."); err != nil || a.Mode == nil || !a.RecurseMode {
		return err
	}
	return chmod(to, ".", os.FileMode(*a.Mode), true)
}

// loadFile writes the file that is mounted into the main container: another one could not take its place.
func (s *step) loadFile(ctx context.Context, a executor.Artifact, store artifact.Store) error {
	dir, done, err := s.scratch()
	if err != nil {
		return err
	}
	defer done()
	if err := store.Load(ctx, dir, a.Name); err != nil {
		return err
	}
	from, err := dir.Open(a.Name)
	if err != nil {
		return err
	}
	defer from.Close()
	to, err := s.place(a, unix.O_WRONLY|unix.O_TRUNC)
	if err != nil {
		return err
	}
	_, err = io.Copy(to, from)
	return errors.Join(err, to.Close())
}

package step

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/wasmshim/containerd-shim-wasm/argo/executor"
	"github.com/wasmshim/containerd-shim-wasm/argo/executor/artifact"
)

// Modes of a downloaded artifact.
const (
	fileMode   = 0o600
	folderMode = 0o700
)

// postponed reports whether an input artifact is loaded only when the main container is there.
func (s *step) postponed(a executor.Artifact) bool {
	return s.Lazy && slices.ContainsFunc(s.template.Lazy(), func(l executor.Artifact) bool { return l.Name == a.Name })
}

// postpone looks whether an artifact is there, and leaves an empty file or folder in its place, which the kubelet mounts
// into the main container. Its errors are those of a download.
func (s *step) postpone(ctx context.Context, a executor.Artifact) error {
	if _, err := s.openStore(a.Location); err != nil {
		return err // in upstream's words, as below
	}
	found, err := s.find(ctx, a)
	if err != nil {
		return fmt.Errorf("artifact %s failed to load: %w", a.Name, err)
	}
	to, name, err := s.inputPlace(a)
	if err != nil {
		return err
	}
	defer to.Close()
	if found.IsFolder {
		err = to.Mkdir(name, folderMode)
	} else {
		err = create(to, name)
	}
	if err != nil {
		return artifact.Whole(to, err)
	}
	s.Log.Info("leave an input artifact to be read from its store", "name", a.Name, "path", a.Path)
	if a.Mode == nil {
		return nil
	}
	return artifact.Whole(to, chmodOne(to, name, os.FileMode(*a.Mode)))
}

func create(in *os.Root, name string) error {
	f, err := in.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, fileMode)
	if err != nil {
		return err
	}
	return f.Close()
}

func (s *step) find(ctx context.Context, a executor.Artifact) (artifact.Found, error) {
	at, err := a.In(s.template.Archive)
	if err != nil {
		return artifact.Found{}, err
	}
	return artifact.Find(ctx, at, s.secret, s.Log)
}

// Fetch loads the input artifacts that the pod's init container has left for later, into the main container's mounts. It
// runs in the wait container, which has these mounts below mainFiles.
func Fetch(ctx context.Context, p Pod) error {
	unix.Umask(0)
	s, err := p.begin()
	if err != nil {
		return err
	}
	lazy := s.template.Lazy()
	errs := make([]error, len(lazy))
	each(len(lazy), atOnce, func(i int) { errs[i] = s.fetch(ctx, lazy[i]) })
	return errors.Join(errs...)
}

func (s *step) fetch(ctx context.Context, a executor.Artifact) error {
	store, err := s.openStore(a.Location)
	if err != nil {
		return err
	}
	place, err := openBeneath(s.Root+mainFiles, a.Path, unix.O_PATH, inMain)
	if err != nil {
		return err
	}
	defer place.Close()
	info, err := place.Stat()
	if err != nil {
		return err
	}
	if info.IsDir() {
		err = s.fetchFolder(ctx, a, store)
	} else {
		err = s.fetchFile(ctx, a, store)
	}
	if a.Optional && errors.Is(err, artifact.ErrNotFound) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("artifact %s failed to load: %w", a.Name, err)
	}
	s.Log.Info("loaded an input artifact", "name", a.Name, "path", a.Path)
	return nil
}

func (s *step) fetchFolder(ctx context.Context, a executor.Artifact, store artifact.Store) error {
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

// fetchFile writes the file that is mounted into the main container: another one could not take its place.
func (s *step) fetchFile(ctx context.Context, a executor.Artifact, store artifact.Store) error {
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
	to, err := openBeneath(s.Root+mainFiles, a.Path, unix.O_WRONLY|unix.O_TRUNC, inMain)
	if err != nil {
		return err
	}
	_, err = io.Copy(to, from)
	return errors.Join(err, to.Close())
}

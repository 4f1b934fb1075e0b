package step

import (
	"context"
	"crypto/rand"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/wasmshim/containerd-shim-wasm/argo/executor"
	"github.com/wasmshim/containerd-shim-wasm/argo/executor/artifact"
)

// inputArtifacts is the volume from which the kubelet mounts each input artifact, by its name (upstream's
// ExecutorArtifactBaseDir).
const inputArtifacts = "/argo/inputs/artifacts"

// loadArtifacts brings the input artifacts. The error is that of the first in the template that fails; upstream does not
// begin with those after it.
func (s *step) loadArtifacts(ctx context.Context) error {
	all := s.template.InputArtifacts
	paths := make([]string, len(all))
	for i, a := range all {
		paths[i] = a.Path
	}
	limit := atOnce
	if nested(paths) {
		limit = 1 // one goes into the folder of another
	}
	p, err := s.planner()
	if err != nil {
		return err
	}
	errs := make([]error, len(all))
	each(len(all), limit, func(i int) { errs[i] = p.loadArtifact(ctx, all[i]) })
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

func (p planner) loadArtifact(ctx context.Context, a executor.Artifact) error {
	if !a.Supplied() {
		if a.Optional {
			p.Log.Info("skip an optional input artifact that is not supplied", "name", a.Name)
			return nil
		}
		return fmt.Errorf("required artifact '%s' not supplied", a.Name)
	}
	err := p.loadOrPostpone(ctx, a)
	if optionalMissing(a, err) {
		p.Log.Info("skip an optional input artifact that is not found", "name", a.Name)
		return nil
	}
	return err
}

func (p planner) loadOrPostpone(ctx context.Context, a executor.Artifact) error {
	if p.isLazy(a) {
		if postponed, err := p.postpone(ctx, a); postponed || err != nil {
			return err
		}
	}
	return p.download(ctx, a)
}

func (s *step) download(ctx context.Context, a executor.Artifact) error {
	store, err := s.openStore(a.Location)
	if err != nil {
		return err
	}
	to, name, err := s.inputPlace(a)
	if err != nil {
		return err
	}
	defer to.Close()
	// Only the whole artifact gets its name. Upstream's temporary names do not differ between runs.
	part := name + "." + rand.Text()
	loaded, unpacked := part+".tmp", part+".tmpdir"
	defer func() { _, _ = to.RemoveAll(loaded), to.RemoveAll(unpacked) }()
	if err := store.Load(ctx, to, loaded); err != nil {
		return fmt.Errorf("artifact %s failed to load: %w", a.Name, err)
	}
	if err := s.unpack(ctx, a.Archive, to, loaded, unpacked, name); err != nil {
		return artifact.Whole(to, err)
	}
	s.Log.Info("loaded an input artifact", "name", a.Name, "path", filepath.Join(to.Name(), name))
	if a.Mode == nil {
		return nil
	}
	return artifact.Whole(to, chmod(to, name, os.FileMode(*a.Mode), a.RecurseMode))
}

// inputPlace returns where an input artifact goes: to its path, if that is on a volume of the main container.
func (s *step) inputPlace(a executor.Artifact) (*os.Root, string, error) {
	dir, name := inputArtifacts, a.Name
	if at := path.Clean(a.Path); s.template.OnVolume(at) {
		dir, name = mainFiles, strings.TrimPrefix(at, "/")
	}
	// Upstream makes missing folders. Only a volume's are within the reach of others.
	err := os.MkdirAll(s.Root+dir, 0o700)
	if err != nil {
		return nil, "", fmt.Errorf("failed to create artifact temporary parent directory %s: %w", dir, err)
	}
	to, err := os.OpenRoot(s.Root + dir)
	if err != nil {
		return nil, "", err
	}
	if parent := path.Dir(name); parent != "." {
		if err := to.MkdirAll(parent, 0o700); err != nil {
			to.Close()
			return nil, "", fmt.Errorf("failed to create artifact temporary parent directory %s: %w", path.Join(dir, parent), artifact.Whole(to, err))
		}
	}
	return to, name, nil
}

// unpack gives what is loaded the artifact's name, unpacked if the strategy says so or if it is a tarball.
func (s *step) unpack(ctx context.Context, strategy *executor.ArchiveStrategy, to *os.Root, loaded, unpacked, name string) error {
	if strategy == nil {
		strategy = &executor.ArchiveStrategy{}
	}
	if strategy.None != nil {
		return rename(to, loaded, name)
	}
	f, err := to.OpenFile(loaded, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	extract := untar
	switch {
	case strategy.Zip != nil:
		extract = unzip
	case strategy.Tar == nil && !isTarball(f):
		return rename(to, loaded, name)
	}
	return expand(ctx, f, extract, to, unpacked, name)
}

// expand unpacks an archive into a folder of which it takes the content to a name: an archive of one file, or of one
// folder, becomes that file or folder (upstream's unpack).
func expand(ctx context.Context, f *os.File, extract func(context.Context, *os.File, *os.Root) error, to *os.Root, unpacked, name string) error {
	if err := to.MkdirAll(unpacked, 0o777); err != nil {
		return err
	}
	into, err := to.OpenRoot(unpacked)
	if err != nil {
		return err
	}
	defer into.Close()
	if err := extract(ctx, f, into); err != nil {
		return artifact.Whole(into, err)
	}
	dir, err := into.Open(".")
	if err != nil {
		return err
	}
	defer dir.Close()
	entries, err := dir.Readdirnames(2)
	if len(entries) == 1 {
		return rename(to, path.Join(unpacked, entries[0]), name)
	}
	if err != nil && len(entries) > 0 {
		return err
	}
	return rename(to, unpacked, name)
}

// rename renames a file or a folder. Like os.Rename, it does not replace a folder.
func rename(in *os.Root, from, to string) error {
	if info, err := in.Lstat(to); err == nil && info.IsDir() {
		return &os.LinkError{Op: "rename", Old: from, New: to, Err: unix.EEXIST}
	}
	return in.Rename(from, to)
}

// chmod sets the mode of a file or a folder, and of all that is in it. Links that lead out of the folder are errors.
func chmod(in *os.Root, name string, mode os.FileMode, recurse bool) error {
	if err := chmodOne(in, name, mode); err != nil || !recurse {
		return err
	}
	info, err := in.Lstat(name)
	if err != nil || !info.IsDir() {
		return nil // as upstream, which has set what it could
	}
	dir, err := in.OpenFile(name, os.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil // the new mode may forbid it
	}
	defer dir.Close()
	for {
		names, err := dir.Readdirnames(256)
		if err != nil {
			return nil // it is at its end
		}
		for _, entry := range names {
			if err := chmod(in, path.Join(name, entry), mode, true); err != nil {
				return err
			}
		}
	}
}

// chmodOne does so by a descriptor if it can: os.Root's Chmod needs Linux 6.6 or a /proc, which our container does not
// have.
func chmodOne(in *os.Root, name string, mode os.FileMode) error {
	f, err := in.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	if err != nil {
		return in.Chmod(name, mode)
	}
	defer f.Close()
	return f.Chmod(mode)
}

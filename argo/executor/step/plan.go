package step

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"

	"github.com/wasmshim/containerd-shim-wasm/argo/executor"
	"github.com/wasmshim/containerd-shim-wasm/argo/executor/artifact"
	"github.com/wasmshim/containerd-shim-wasm/artifact/archive"
	"github.com/wasmshim/containerd-shim-wasm/artifact/object"
	"github.com/wasmshim/containerd-shim-wasm/artifact/unpack"
)

// Modes of a downloaded artifact.
const (
	fileMode   = 0o600
	folderMode = 0o700
)

// cacheSize bounds what is kept in memory of all objects, in bytes.
const cacheSize = 24 << 20

// planned is an input artifact that has not been loaded, as it is in its store. The version of its object is fixed.
type planned struct {
	executor.Artifact
	bucket object.Bucket
	prefix string // of the keys of a folder's objects, "" for one object
	object *object.Object
	is     archive.Plan // what the object becomes
}

// planner looks at artifacts in their stores. What it reads of them stays in its cache.
type planner struct {
	*step
	cache *object.Cache
}

func (s *step) planner() (planner, error) {
	cache, err := object.NewCache(cacheSize)
	return planner{s, cache}, err
}

// plan looks for an artifact in its store. The errors are those of a download.
func (p planner) plan(ctx context.Context, a executor.Artifact) (planned, error) {
	store, err := p.openStore(a.Location)
	if err != nil {
		return planned{}, err // in upstream's words, as below
	}
	one, err := p.find(ctx, a, store)
	if err != nil {
		return planned{}, fmt.Errorf("artifact %s failed to load: %w", a.Name, err)
	}
	return one, nil
}

func (p planner) find(ctx context.Context, a executor.Artifact, in artifact.Store) (planned, error) {
	found, err := artifact.Find(ctx, in)
	if err != nil {
		return planned{}, err
	}
	one := planned{Artifact: a, bucket: object.Bucket{Client: found.Client, Name: found.Bucket, SSE: found.CustomerKey}, is: archive.Plan{Kind: archive.Plain}}
	if found.IsFolder {
		one.prefix = found.Key
		if found.HasKeys {
			one.is = archive.Plan{Reason: "each object of the folder has a key of its own"}
		}
		return one, nil
	}
	of := found.Object
	one.object = p.cache.Open(one.bucket, object.InfoOf(found.Key, of))
	// Init, which alone is lazy, loads a small object in any case.
	if p.Lazy && of.Size < smallest || a.Archive != nil && a.Archive.None != nil {
		return one, nil
	}
	one.is, err = archive.Look(ctx, one.object, of.Size, formatOf(a.Archive))
	return one, err
}

func formatOf(s *executor.ArchiveStrategy) archive.Format {
	switch {
	case s != nil && s.Zip != nil:
		return archive.Zip
	case s != nil && s.Tar != nil:
		return archive.Tar
	}
	return archive.Auto
}

// isFolder reports whether the artifact becomes a folder.
func (one planned) isFolder() bool { return one.prefix != "" || one.is.Kind == archive.Tree }

// size is that of the object, 0 for a folder of objects.
func (one planned) size() int64 {
	if one.object == nil {
		return 0
	}
	return one.object.Info().Size
}

// place opens what the kubelet mounts into the main container in the artifact's place. The wait container has that, too.
func (s *step) place(a executor.Artifact, flags int) (*os.File, error) {
	return openBeneath(s.Root+mainFiles, a.Path, flags, inMain)
}

// isLoaded reports whether init has loaded the artifact: it leaves an empty file or folder in the place of one that it has
// not.
func (s *step) isLoaded(a executor.Artifact) (bool, error) {
	place, err := s.place(a, os.O_RDONLY)
	if err != nil {
		return false, err
	}
	defer place.Close()
	left, err := executor.IsLeft(place)
	return !left, err
}

// unpacked returns the artifact as an archive that is going to be unpacked where the main container has it.
func (s *step) unpacked(one planned) (*unpack.Artifact, error) {
	options := unpack.Options{Name: one.Name, Recurse: one.RecurseMode, Log: s.Log}
	if one.Mode != nil {
		mode := fs.FileMode(*one.Mode)
		options.Mode = &mode
	}
	if one.is.Kind == archive.Tree {
		folder, err := os.OpenRoot(s.Root + mainFiles + one.Path)
		if err != nil {
			return nil, err
		}
		return unpack.NewFolder(one.is, folder, options)
	}
	place, err := s.place(one.Artifact, unix.O_RDWR)
	if err != nil {
		return nil, err
	}
	return unpack.NewFile(one.is, place, options)
}

// optionalMissing reports whether an artifact is not in its store, and need not be.
func optionalMissing(a executor.Artifact, err error) bool {
	return a.Optional && errors.Is(err, artifact.ErrNotFound)
}

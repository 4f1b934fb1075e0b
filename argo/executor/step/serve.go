package step

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/wasmshim/containerd-shim-wasm/argo/executor"
	"github.com/wasmshim/containerd-shim-wasm/artifact/archive"
	"github.com/wasmshim/containerd-shim-wasm/artifact/mount"
	"github.com/wasmshim/containerd-shim-wasm/artifact/object"
	"github.com/wasmshim/containerd-shim-wasm/artifact/progress"
	"github.com/wasmshim/containerd-shim-wasm/artifact/unpack"
	"github.com/wasmshim/containerd-shim-wasm/worker/control"
)

// Artifacts are the input artifacts that the pod's init container has left to be read later, as they are in their stores.
type Artifacts struct {
	planner
	all   []served
	spool *os.Root // for what main writes to plain artifacts, nil if there is no place
	room  *mount.Room
}

// served is one artifact: a file, a tree, an archive, or nothing.
type served struct {
	planned
	kind    control.Artifact
	file    mount.File
	tree    mount.Tree
	archive *unpack.Artifact
}

// FindArtifacts looks for them. It fixes the version of each object.
func FindArtifacts(ctx context.Context, pod Pod) (*Artifacts, error) {
	unix.Umask(0)
	s, err := pod.begin()
	if err != nil {
		return nil, err
	}
	p, err := s.planner()
	if err != nil {
		return nil, err
	}
	lazy := s.template.Lazy()
	found := &Artifacts{planner: p, all: make([]served, len(lazy)), room: mount.Boundless()}
	if found.spool, _, err = s.scratch(); err != nil {
		s.Log.Warn("make a folder for what the main container writes to its input artifacts: it can only read them", "error", err)
	}
	errs := make([]error, len(lazy))
	each(len(lazy), atOnce, func(i int) { found.all[i], errs[i] = p.look(ctx, lazy[i]) })
	return found, errors.Join(errs...)
}

// Kinds says what each artifact of the template is, in its order.
func (f *Artifacts) Kinds() []control.Artifact {
	kinds := make([]control.Artifact, len(f.all))
	for i, one := range f.all {
		kinds[i] = one.kind
	}
	return kinds
}

func (p planner) look(ctx context.Context, a executor.Artifact) (served, error) {
	if loaded, err := p.isLoaded(a); loaded || err != nil {
		return served{}, err
	}
	one, err := p.plan(ctx, a)
	if optionalMissing(a, err) {
		return served{}, nil
	}
	if err != nil {
		return served{}, err
	}
	as := served{planned: one, kind: control.File}
	if one.isFolder() {
		as.kind = control.Folder
	}
	switch {
	case one.is.Kind == archive.Unknown:
		err = errors.New(one.is.Reason)
	case one.is.Kind != archive.Plain:
		as.archive, err = p.unpacked(one)
	case one.isFolder():
		as.tree, err = p.folder(ctx, one)
	default:
		as.file = p.as(one.object, modeOr(a, fileMode))
	}
	if err != nil {
		return served{}, fmt.Errorf("artifact %s failed to load: %w", a.Name, err)
	}
	return as, nil
}

func (p planner) folder(ctx context.Context, one planned) (mount.Tree, error) {
	tree := mount.Tree{Files: map[string]mount.File{}, Mode: modeOr(one.Artifact, folderMode), UID: uint32(os.Getuid()), GID: uint32(os.Getgid())}
	mode := fs.FileMode(fileMode)
	if one.RecurseMode {
		mode = modeOr(one.Artifact, fileMode)
	}
	for info, err := range one.bucket.Files(ctx, one.prefix) {
		if many := (*object.TooManyError)(nil); errors.As(err, &many) {
			return tree, fmt.Errorf("the folder has too many files to be read while main runs: after %d of them their list takes more than %d MiB of memory; "+
				"the annotation wasm.shim/download-artifacts of the pod downloads them before", many.Files, object.MaxList>>20)
		}
		if err != nil {
			return tree, err
		}
		// As where it is downloaded.
		rel := strings.TrimLeft(strings.TrimPrefix(info.Key, one.prefix), "/")
		if !filepath.IsLocal(rel) {
			return tree, fmt.Errorf("illegal file path: %s", info.Key)
		}
		tree.Files[path.Clean(rel)] = p.as(p.cache.Open(one.bucket, info), mode)
	}
	return tree, nil
}

// as returns an object as a file of this process's user.
func (p planner) as(o *object.Object, mode fs.FileMode) mount.File {
	return mount.File{Object: o, Mode: mode, UID: uint32(os.Getuid()), GID: uint32(os.Getgid())}
}

func modeOr(a executor.Artifact, mode fs.FileMode) fs.FileMode {
	if a.Mode == nil {
		return mode
	}
	return fs.FileMode(*a.Mode)
}

// Serving is the service of artifacts.
type Serving struct{ running sync.WaitGroup }

// Serve serves each artifact by a descriptor of /dev/fuse, which is mounted unless the artifact is of no kind. It takes
// the descriptors over. Archives are unpacked meanwhile.
func (f *Artifacts) Serve(ctx context.Context, devices []*os.File) (*Serving, error) {
	all := &Serving{}
	for i, one := range f.all {
		server, err := f.serve(one, devices[i])
		if err != nil {
			return all, err
		}
		if server != nil {
			all.running.Go(func() {
				server.Wait()
				f.sum(one)
			})
		}
		if one.archive != nil {
			go func() { _ = one.archive.Unpack(ctx, one.object, one.size()) }() // it logs its error
		}
	}
	return all, nil
}

// stats are the sums over all objects of an artifact.
func (one served) stats() object.Stats {
	var all object.Stats
	for _, o := range one.objects() {
		all = all.Plus(o.Stats())
	}
	return all
}

// Progress says what was read of each artifact that is served.
func (f *Artifacts) Progress() []progress.Artifact {
	var all []progress.Artifact
	for _, one := range f.all {
		if one.kind == control.NoArtifact {
			continue
		}
		key := one.prefix
		if one.object != nil {
			key = one.object.Info().Key
		}
		all = append(all, one.stats().Of(progress.Artifact{
			Name: one.Name, Path: one.Path, Object: "s3://" + one.bucket.Name + "/" + key, Size: one.size(),
		}))
	}
	return all
}

// sum logs what was read of an artifact, for people who ask why a step was slow.
func (f *Artifacts) sum(one served) {
	f.Log.With("name", one.Name).Info("an input artifact was read from its store", one.stats().Fields()...)
}

func (one served) objects() []*object.Object {
	if one.object != nil {
		return []*object.Object{one.object}
	}
	var all []*object.Object
	for _, file := range one.tree.Files {
		all = append(all, file.Object)
	}
	return all
}

// server serves one mount.
type server interface{ Wait() }

func (f *Artifacts) serve(one served, device *os.File) (server, error) {
	switch {
	case one.kind == control.NoArtifact:
		return nil, device.Close()
	case one.archive != nil:
		return one.archive.Serve(device)
	case one.kind == control.Folder:
		one.tree.Spool, one.tree.Room = f.spool, f.room
		return mount.ServeTree(device, one.tree, f.Log)
	}
	one.file.Spool, one.file.Room = f.spool, f.room
	return mount.ServeFile(device, one.file, f.Log)
}

// Wait returns when nothing is mounted any more.
func (all *Serving) Wait() { all.running.Wait() }

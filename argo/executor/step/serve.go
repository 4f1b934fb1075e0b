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

	"github.com/wasmshim/containerd-shim-wasm/argo/executor"
	"github.com/wasmshim/containerd-shim-wasm/argo/executor/artifact"
	"github.com/wasmshim/containerd-shim-wasm/artifact/mount"
	"github.com/wasmshim/containerd-shim-wasm/artifact/object"
	"github.com/wasmshim/containerd-shim-wasm/worker/control"
)

// cacheSize bounds what is kept in memory of all objects, in bytes.
const cacheSize = 32 << 20

// maxTree bounds the memory for the list of a folder's files, in bytes: a store may list files without end. A file takes
// about treeFile bytes and its key.
const (
	maxTree  = 128 << 20
	treeFile = 512
)

// Artifacts are the input artifacts that the pod's init container has left to be read later, as they are in their stores.
type Artifacts struct {
	step  *step
	cache *object.Cache
	all   []served
}

// served is one artifact: a file, a tree, or nothing.
type served struct {
	kind control.Artifact
	file mount.File
	tree mount.Tree
}

// FindArtifacts looks for them. It fixes the version of each object.
func FindArtifacts(ctx context.Context, p Pod) (*Artifacts, error) {
	s, err := p.begin()
	if err != nil {
		return nil, err
	}
	found := &Artifacts{step: s}
	if found.cache, err = object.NewCache(cacheSize); err != nil {
		return nil, err
	}
	lazy := s.template.Lazy()
	found.all = make([]served, len(lazy))
	errs := make([]error, len(lazy))
	each(len(lazy), atOnce, func(i int) { found.all[i], errs[i] = found.look(ctx, lazy[i]) })
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

func (f *Artifacts) look(ctx context.Context, a executor.Artifact) (served, error) {
	at, err := f.step.find(ctx, a)
	if a.Optional && errors.Is(err, artifact.ErrNotFound) {
		return served{}, nil
	}
	var one served
	switch {
	case err != nil:
	case at.IsFolder:
		one, err = f.folder(ctx, a, at)
	default:
		one, err = f.file(ctx, a, at)
	}
	if err != nil {
		return served{}, fmt.Errorf("artifact %s failed to load: %w", a.Name, err)
	}
	return one, nil
}

func (f *Artifacts) file(ctx context.Context, a executor.Artifact, at artifact.Found) (served, error) {
	bucket := object.Bucket{Client: at.Client, Name: at.Bucket}
	info, err := bucket.Stat(ctx, at.Key)
	if err != nil {
		return served{}, err
	}
	return served{kind: control.File, file: f.open(bucket, info, modeOr(a, fileMode))}, nil
}

func (f *Artifacts) folder(ctx context.Context, a executor.Artifact, at artifact.Found) (served, error) {
	bucket := object.Bucket{Client: at.Client, Name: at.Bucket}
	tree := mount.Tree{Files: map[string]mount.File{}, Mode: modeOr(a, folderMode), UID: uint32(os.Getuid()), GID: uint32(os.Getgid())}
	mode := fs.FileMode(fileMode)
	if a.RecurseMode {
		mode = modeOr(a, fileMode)
	}
	room := maxTree
	for info, err := range bucket.List(ctx, at.Key) {
		if err != nil {
			return served{}, err
		}
		if room -= len(info.Key) + treeFile; room < 0 {
			return served{}, fmt.Errorf("the folder has too many files to be read while main runs: after %d of them their list takes more than %d MiB of memory; "+
				"the annotation wasm.shim/download-artifacts of the pod downloads them before", len(tree.Files), maxTree>>20)
		}
		if strings.HasSuffix(info.Key, "/") {
			continue // it stands for the folder itself
		}
		// As where it is downloaded.
		rel := strings.TrimLeft(strings.TrimPrefix(info.Key, at.Key), "/")
		if !filepath.IsLocal(rel) {
			return served{}, fmt.Errorf("illegal file path: %s", info.Key)
		}
		tree.Files[path.Clean(rel)] = f.open(bucket, info, mode)
	}
	return served{kind: control.Folder, tree: tree}, nil
}

func (f *Artifacts) open(bucket object.Bucket, info object.Info, mode fs.FileMode) mount.File {
	return mount.File{Object: f.cache.Open(bucket, info), Mode: mode, UID: uint32(os.Getuid()), GID: uint32(os.Getgid())}
}

func modeOr(a executor.Artifact, mode fs.FileMode) fs.FileMode {
	if a.Mode == nil {
		return mode
	}
	return fs.FileMode(*a.Mode)
}

// Serving is the service of artifacts.
type Serving []*mount.Server

// Serve serves each artifact by a descriptor of /dev/fuse, which is mounted unless the artifact is of no kind. It takes
// the descriptors over.
func (f *Artifacts) Serve(devices []*os.File) (Serving, error) {
	var all Serving
	for i, one := range f.all {
		server, err := f.serve(one, devices[i])
		if err != nil {
			return all, err
		}
		if server != nil {
			all = append(all, server)
		}
	}
	return all, nil
}

func (f *Artifacts) serve(one served, device *os.File) (*mount.Server, error) {
	switch one.kind {
	case control.File:
		return mount.ServeFile(device, one.file, f.step.Log)
	case control.Folder:
		return mount.ServeTree(device, one.tree, f.step.Log)
	}
	return nil, device.Close()
}

// Wait returns when nothing is mounted any more.
func (all Serving) Wait() {
	for _, server := range all {
		server.Wait()
	}
}

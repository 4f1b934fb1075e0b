package step

import (
	"context"
	"os"
	"slices"

	"github.com/wasmshim/containerd-shim-wasm/argo/executor"
	"github.com/wasmshim/containerd-shim-wasm/argo/executor/artifact"
	"github.com/wasmshim/containerd-shim-wasm/artifact/archive"
)

// smallest is the size of the smallest object that is left to be read later, in bytes: a process that serves a smaller one
// would cost more than its download.
const smallest = 256 << 10

// isLazy reports whether an input artifact need not be loaded before the main container is there.
func (s *step) isLazy(a executor.Artifact) bool {
	return s.Lazy && slices.ContainsFunc(s.template.Lazy(), func(l executor.Artifact) bool { return l.Name == a.Name })
}

// postpone looks whether an artifact is in its store, and leaves an empty file or folder in its place, which the kubelet
// mounts into the main container. It reports false for an artifact that is to be loaded now.
func (p planner) postpone(ctx context.Context, a executor.Artifact) (bool, error) {
	one, err := p.plan(ctx, a)
	if err != nil || one.is.Kind == archive.Unknown || one.object != nil && one.size() < smallest {
		return false, err
	}
	to, name, err := p.inputPlace(a)
	if err != nil {
		return false, err
	}
	defer to.Close()
	if one.isFolder() {
		err = to.Mkdir(name, folderMode)
	} else {
		err = create(to, name)
	}
	if err == nil && a.Mode != nil {
		err = chmodOne(to, name, os.FileMode(*a.Mode))
	}
	if err != nil {
		return false, artifact.Whole(to, err)
	}
	p.Log.Info("leave an input artifact to be read from its store", "name", a.Name, "path", a.Path)
	return true, nil
}

func create(in *os.Root, name string) error {
	f, err := in.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, fileMode)
	if err != nil {
		return err
	}
	return f.Close()
}

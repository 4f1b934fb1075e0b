package module

import (
	"context"
	"errors"
	"fmt"
	"os"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/wasmshim/containerd-shim-wasm/entrypoint"
	"github.com/wasmshim/containerd-shim-wasm/oci"
	"github.com/wasmshim/containerd-shim-wasm/sandbox"
)

// Container opens and loads the modules of one container. Its methods may be called concurrently.
type Container struct {
	loader *Loader
	about  About
	origin
}

// About describes a container.
type About struct {
	// ID is containerd's id, empty for compiling ahead of time (Warm).
	ID string
	// ImageName is its creator's name for its image, or empty if it gave none.
	ImageName string
	// Rootfs are the mounts of its root file system.
	Rootfs []sandbox.Mount
}

// Container returns the part of a container that opens and loads its modules.
func (l *Loader) Container(about About) *Container { return &Container{loader: l, about: about} }

// Open opens the file that an entry point names: a file of the container or, if there is none, a Wasm layer
// of its image. It returns ErrNative if the file is not Wasm and does not claim to be. The caller closes the
// source.
func (c *Container) Open(ctx context.Context, sb *sandbox.Sandbox, process *specs.Process, point entrypoint.Point) (Source, error) {
	from, err := c.find(ctx, sb, process, point)
	from.function = &point.Function
	return from, err
}

func (c *Container) find(ctx context.Context, sb *sandbox.Sandbox, process *specs.Process, point entrypoint.Point) (Source, error) {
	files := files{sb, c.about.Rootfs}
	from, err := files.open(ctx, process, point)
	if !errors.Is(err, os.ErrNotExist) {
		return from, err
	}
	found, findErr := c.image(ctx)
	if findErr != nil {
		return Source{}, fmt.Errorf("entry point %s is no file of the container; look for it among the image's layers: %w", point.File, findErr)
	}
	layer, selectErr := found.Select(point)
	if selectErr == nil {
		return openLayer(found, layer)
	}
	if local := point.Local(process.Cwd); local != "" {
		if from, err := files.openAt(local, point); !errors.Is(err, os.ErrNotExist) {
			return from, err
		}
	}
	if errors.Is(selectErr, oci.ErrNoModule) {
		return Source{}, err
	}
	return Source{}, fmt.Errorf("entry point %s is no file of the container: %w", point.File, selectErr)
}

// files are the files of a container: its root file system, mounted in a sandbox from rootfs.
type files struct {
	sandbox *sandbox.Sandbox
	rootfs  []sandbox.Mount
}

// open opens the file of the container that an entry point names.
func (f files) open(ctx context.Context, process *specs.Process, point entrypoint.Point) (Source, error) {
	path, err := f.sandbox.LookPath(ctx, point, process.Cwd, process.Env)
	if err != nil {
		return Source{}, NotWasm(point, err)
	}
	return f.openAt(path, point)
}

func (f files) openAt(path string, point entrypoint.Point) (Source, error) {
	file, err := f.sandbox.OpenFile(path)
	if err != nil {
		return Source{}, NotWasm(point, explainOpen(path, err))
	}
	if err := checkMagic(file, path); err != nil {
		file.Close()
		return Source{}, NotWasm(point, err)
	}
	if stored, ok := f.sandbox.Stored(file, f.rootfs); ok {
		file.Close()
		return Source{file: stored, stored: true}, nil
	}
	return Source{file: file}, nil
}

// NotWasm returns the error for an entry point that does not lead to WebAssembly: the reason, if it claims to
// be WebAssembly, or else ErrNative with the reason.
func NotWasm(point entrypoint.Point, reason error) error {
	if point.IsWasm() {
		return reason
	}
	return fmt.Errorf("%w: %w", ErrNative, reason)
}

func explainOpen(path string, err error) error {
	switch {
	case errors.Is(err, os.ErrNotExist):
		return fmt.Errorf("entry point %s does not exist in the container: check the image's entry point and the command: %w", path, err)
	case errors.Is(err, sandbox.ErrNotRegular):
		return fmt.Errorf("entry point %s is not a file: %w", path, err)
	}
	return fmt.Errorf("entry point %s cannot be read: %w", path, err)
}

package inspect

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/wasmshim/containerd-shim-wasm/entrypoint"
	"github.com/wasmshim/containerd-shim-wasm/oci"
	"github.com/wasmshim/containerd-shim-wasm/wasm/world"
)

// maxListed is how many names an error lists at most.
const maxListed = 20

// runsFunction describes which function of a component is called: the one that the entry point names, or that
// of a command.
func runsFunction(where, function string, w world.World) (string, error) {
	if missing := w.Missing(); len(missing) > 0 {
		return "", fmt.Errorf("%s is %s that imports what a Wasm container does not provide: %s; build it for wasi:cli/command of WASI 0.2 (wasm32-wasip2)",
			where, oci.WasmComponent, listed(missing))
	}
	if function == entrypoint.Start {
		if command := w.Command(); command != "" {
			return fmt.Sprintf("%s, by its %s", oci.WasmComponent, command), nil
		}
		return "", fmt.Errorf("%s is %s that exports no wasi:cli/run@0.2: it is a library, not a command; name a function as FILE#FUNCTION (its exports: %s)",
			where, oci.WasmComponent, listed(world.Names(w.Exports)))
	}
	of, _, isMember := strings.Cut(function, "#")
	if isMember && w.Has(of, world.Instance) || w.Has(function, world.Function) {
		return fmt.Sprintf("%s, by its function %s, which must take no arguments", oci.WasmComponent, function), nil
	}
	return "", fmt.Errorf("%s is %s that exports no function %q (its exports: %s)", where, oci.WasmComponent, function, listed(world.Names(w.Exports)))
}

func listed(names []string) string {
	switch {
	case len(names) == 0:
		return "none"
	case len(names) > maxListed:
		return fmt.Sprintf("%s and %d more", strings.Join(names[:maxListed], ", "), len(names)-maxListed)
	}
	return strings.Join(names, ", ")
}

// worldOfFile reads the world of a component that is a file of a layer. It reads the layer a second time: a
// root file system may hold many components, and only one runs.
func (l *look) worldOfFile(ctx context.Context, f file) (world.World, error) {
	if f.layer == unpackedLayer {
		file, err := l.unpacked.Open(strings.TrimPrefix(f.name, "/"))
		if err != nil {
			return world.World{}, err
		}
		defer file.Close()
		return world.Read(file)
	}
	layer, err := l.unpacking.Open(ctx, l.source, l.manifest.Layers[f.layer])
	if err != nil {
		return world.World{}, err
	}
	defer layer.Close()
	archive := tar.NewReader(layer)
	w, err := world.World{}, errors.New("the layer does not hold it any more")
	for {
		header, next := archive.Next()
		if next == io.EOF {
			return w, err // the last entry with that name counts
		}
		if next != nil {
			return world.World{}, next
		}
		if header.Typeflag == tar.TypeReg && path.Clean("/"+header.Name) == f.name {
			w, err = world.Read(archive)
		}
	}
}

// worldOfLayer reads the world of a component that is a layer. data is the decompressed content of a
// compressed layer, otherwise nil.
func (l *look) worldOfLayer(ctx context.Context, layer ocispec.Descriptor, data []byte) (world.World, error) {
	if data != nil {
		return world.Read(bytes.NewReader(data))
	}
	reader, err := l.source.Open(ctx, layer)
	if err != nil {
		return world.World{}, err
	}
	defer reader.Close()
	return world.Read(reader)
}

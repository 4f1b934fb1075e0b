package inspect

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/wasmshim/containerd-shim-wasm/oci"
)

// Bounds of what layers of files are looked through.
const (
	maxUnpacked = 8 << 30 // bytes of one layer, unpacked
	maxFiles    = 1_000_000
	maxLinks    = 40 // as the kernel follows (path_resolution(7))
)

// files is a root file system as far as finding an entry point in it goes.
type files map[string]file

type file struct {
	layer   int    // its number, from 0
	name    string // in that layer, as an absolute path
	size    int64
	content oci.Content
	target  string // of a symbolic link
}

// add lays a layer of files over those before.
func (f files) add(ctx context.Context, source Source, number int, layer ocispec.Descriptor) error {
	archive, closeLayer, err := openFiles(ctx, source, layer)
	if err != nil {
		return err
	}
	defer closeLayer()
	for {
		header, err := archive.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		if err := f.entry(archive, number, header); err != nil {
			return err
		}
		if len(f) > maxFiles {
			return fmt.Errorf("it holds more than %d files", maxFiles)
		}
	}
}

// openFiles opens a layer of files.
func openFiles(ctx context.Context, source Source, layer ocispec.Descriptor) (archive *tar.Reader, closeLayer func(), err error) {
	compressed, err := source.Open(ctx, layer)
	if err != nil {
		return nil, nil, err
	}
	plain, err := Uncompressed(compressed)
	if err != nil {
		compressed.Close()
		return nil, nil, err
	}
	return tar.NewReader(io.LimitReader(plain, maxUnpacked)), func() { plain.Close(); compressed.Close() }, nil
}

func (f files) entry(archive io.Reader, number int, header *tar.Header) error {
	at := path.Clean("/" + header.Name)
	// What a layer takes away (https://github.com/opencontainers/image-spec/blob/main/layer.md#whiteouts).
	if gone, ok := strings.CutPrefix(path.Base(at), ".wh."); ok {
		f.remove(path.Join(path.Dir(at), gone), gone == ".wh..opq", number)
		return nil
	}
	switch header.Typeflag {
	case tar.TypeReg:
		head := make([]byte, oci.HeadSize)
		n, err := io.ReadFull(archive, head)
		if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
			return err
		}
		f[at] = file{layer: number, name: at, size: header.Size, content: oci.ContentOf(head[:n])}
	case tar.TypeLink:
		f[at] = f[path.Clean("/"+header.Linkname)]
	case tar.TypeSymlink:
		f[at] = file{layer: number, target: header.Linkname}
	default:
		delete(f, at)
	}
	return nil
}

// remove takes away a path, or what a folder held before this layer.
func (f files) remove(at string, opaque bool, number int) {
	if opaque {
		at = path.Dir(at)
	} else {
		delete(f, at)
	}
	for name, file := range f {
		if strings.HasPrefix(name, strings.TrimSuffix(at, "/")+"/") && file.layer < number {
			delete(f, name)
		}
	}
}

// find returns the file that a path leads to. Links among the folders above it are followed too.
func (f files) find(at string) (string, file, bool) {
	at = path.Clean("/" + at)
	for range maxLinks {
		next, isLink := f.follow(at)
		if !isLink {
			found, ok := f[at]
			return at, found, ok
		}
		at = next
	}
	return at, file{}, false
}

// follow resolves the first link on a path.
func (f files) follow(at string) (string, bool) {
	for end := 1; end <= len(at); end++ {
		if end < len(at) && at[end] != '/' {
			continue
		}
		link, ok := f[at[:end]]
		if !ok || link.target == "" {
			continue
		}
		target := link.target
		if !path.IsAbs(target) {
			target = path.Join(path.Dir(at[:end]), target)
		}
		return path.Clean("/" + target + at[end:]), true
	}
	return "", false
}

// look returns the first file that one of the paths leads to.
func (f files) look(paths []string) (string, file, bool) {
	for _, p := range paths {
		if at, found, ok := f.find(p); ok {
			return at, found, true
		}
	}
	return "", file{}, false
}

// modules returns the paths of the files that are Wasm.
func (f files) modules() []string {
	var found []string
	for at, file := range f {
		if file.content == oci.WasmModule || file.content == oci.WasmComponent {
			found = append(found, at)
		}
	}
	slices.Sort(found)
	return found
}

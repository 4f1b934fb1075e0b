package inspect

import (
	"archive/zip"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/wasmshim/containerd-shim-wasm/entrypoint"
	"github.com/wasmshim/containerd-shim-wasm/oci"
	"github.com/wasmshim/containerd-shim-wasm/oci/blob"
)

// runsLayer describes what the shim runs of a Wasm layer. function is the one that the entry point names.
func (l *look) runsLayer(ctx context.Context, m oci.Module, function, because string) (string, error) {
	n := slices.IndexFunc(l.manifest.Layers, func(d ocispec.Descriptor) bool { return d.Digest == m.Digest })
	layer := l.manifest.Layers[n]
	where := fmt.Sprintf("layer %d (%s)", n, m)
	if m.Size > l.node.MaxModuleSize {
		return "", l.tooLarge(where)
	}
	head, err := l.head(ctx, layer, false)
	if err != nil {
		return "", err
	}
	content, err := m.CheckHead(head)
	if err != nil {
		return "", err
	}
	var data []byte
	if m.Compression != "" {
		if data, err = l.unpack(ctx, layer, m.Compression); err != nil {
			return "", fmt.Errorf("%s: its %s data is damaged: %w", where, m.Compression, err)
		}
		if int64(len(data)) > l.node.MaxModuleSize {
			return "", l.tooLarge(where)
		}
		content = oci.ContentOf(data[:min(len(data), oci.HeadSize)])
		where += ", in " + m.Compression
	}
	switch content {
	case oci.WasmModule:
		return fmt.Sprintf("%s, %s: %s", where, content, because), nil
	case oci.WasmComponent:
		w, err := l.worldOfLayer(ctx, layer, data)
		if err != nil {
			return "", fmt.Errorf("%s: %w", where, err)
		}
		runs, err := runsFunction(where, function, w)
		return fmt.Sprintf("%s, %s: %s", where, runs, because), err
	case oci.Precompiled:
		if !slices.Contains(l.node.Precompiled, m.Digest.String()) {
			return "", fmt.Errorf("%s is %s, which runs only where the node's configuration lists %s under precompiled", where, content, m.Digest)
		}
		return fmt.Sprintf("%s, %s, which the node's configuration allows: %s", where, content, because), nil
	}
	return "", fmt.Errorf("%s holds %s: push it again with what its media type %s says", where, content, m.MediaType)
}

func (l *look) tooLarge(where string) error {
	return fmt.Errorf("%s has more than %d bytes, the limit: raise max_module_size in the node's configuration", where, l.node.MaxModuleSize)
}

// unpack returns the decompressed content of a layer, up to one byte more than a module may have.
func (l *look) unpack(ctx context.Context, d ocispec.Descriptor, compression string) ([]byte, error) {
	reader, err := l.source.Open(ctx, d)
	if err != nil {
		return nil, err
	}
	defer reader.Close()
	if compression == "zip" {
		// The directory of a zip archive is at its end; the archive is no larger than a module may be.
		data, err := io.ReadAll(io.LimitReader(reader, d.Size))
		if err != nil {
			return nil, err
		}
		return l.unzip(data)
	}
	plain, err := blob.Uncompressed(reader)
	if err != nil {
		return nil, err
	}
	defer plain.Close()
	return io.ReadAll(io.LimitReader(plain, l.node.MaxModuleSize+1))
}

// maxZipped is how many files an archive may list. Package zip allocates memory for each, and the size of the
// archive, at most that of a module, is the only other limit on the list.
const maxZipped = 10_000

// unzip returns the one module of an archive.
func (l *look) unzip(data []byte) ([]byte, error) {
	const listed = "PK\x01\x02" // starts each line of the list (APPNOTE.TXT, 4.3.12)
	if bytes.Count(data, []byte(listed)) > maxZipped {
		return nil, fmt.Errorf("it lists more than %d files", maxZipped)
	}
	archive, err := zip.NewReader(bytes.NewReader(data), int64(len(data)))
	if err != nil {
		return nil, err
	}
	modules := slices.DeleteFunc(slices.Clone(archive.File), func(f *zip.File) bool { return !strings.HasSuffix(f.Name, entrypoint.Suffix) })
	if len(modules) != 1 {
		return nil, fmt.Errorf("it holds %d files whose names end in .wasm, not one", len(modules))
	}
	file, err := modules[0].Open()
	if err != nil {
		return nil, err
	}
	content, err := io.ReadAll(io.LimitReader(file, l.node.MaxModuleSize+1))
	return content, errors.Join(err, file.Close())
}

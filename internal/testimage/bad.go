package testimage

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Bad returns images that must be refused with a clear error: those that containerd stores unchanged.
// For a digest mismatch and a truncated blob, which it does not store, see [Replace], [Truncate] and
// the registry's Replace.
func Bad() []Format {
	entry := []string{"app.wasm"}
	return []Format{
		{
			Name: "bad-two-modules", About: "two Wasm layers without titles, and no entry point",
			Build: func(guest []byte) *Image {
				return asLayers("wasi/wasm", nil, []wasm{{wasmPlain, guest, ""}, {wasmPlain, other(guest), ""}}, nil)
			}, Platform: "wasi/wasm", Entry: entry,
		},
		{
			Name: "bad-two-modules-titled", About: "two Wasm layers with titles, and no entry point",
			Build: func(guest []byte) *Image {
				return asLayers("wasi/wasm", nil, []wasm{{wasmPlain, guest, "one.wasm"}, {wasmPlain, other(guest), "two.wasm"}}, nil)
			}, Platform: "wasi/wasm", Entry: entry,
		},
		{
			Name: "bad-tar-as-wasm", About: "a tar with the media type of Wasm",
			Build: func(guest []byte) *Image {
				content := files(map[string][]byte{"app.wasm": guest})
				return asLayers("wasi/wasm", entry, []wasm{{wasmPlain, content, ""}}, nil)
			}, Platform: "wasi/wasm",
		},
		{
			Name: "bad-text-as-wasm", About: "a module in text with the media type of Wasm",
			Build: func([]byte) *Image {
				return asLayers("wasi/wasm", entry, []wasm{{wasmPlain, []byte("(module (func (export \"_start\")))\n"), ""}}, nil)
			}, Platform: "wasi/wasm",
		},
		{
			Name: "bad-gzip-as-wasm", About: "a compressed module with the media type of one that is not",
			Build: func(guest []byte) *Image {
				return asLayers("wasi/wasm", entry, []wasm{{wasmPlain, gzipped(guest), ""}}, nil)
			}, Platform: "wasi/wasm",
		},
		{
			Name: "bad-wasm-as-gzip", About: "a module with the media type of a compressed one",
			Build: func(guest []byte) *Image {
				return asLayers("wasi/wasm", entry, []wasm{{wasmPlain + "+gzip", guest, ""}}, nil)
			}, Platform: "wasi/wasm",
		},
		{
			Name: "bad-half-gzip", About: "a compressed module that ends in the middle",
			Build: func(guest []byte) *Image {
				half := gzipped(guest)
				return asLayers("wasi/wasm", entry, []wasm{{wasmPlain + "+gzip", half[:len(half)/2], ""}}, nil)
			}, Platform: "wasi/wasm",
		},
		{
			Name: "bad-half-module", About: "a module that ends in the middle, as it was pushed",
			Build: func(guest []byte) *Image {
				return asLayers("wasi/wasm", entry, []wasm{{wasmPlain, guest[:len(guest)/2], ""}}, nil)
			}, Platform: "wasi/wasm",
		},
		{
			Name: "bad-empty-layer", About: "a Wasm layer of no bytes",
			Build: func([]byte) *Image {
				return asLayers("wasi/wasm", entry, []wasm{{wasmPlain, nil, ""}}, nil)
			}, Platform: "wasi/wasm",
		},
		{
			Name: "bad-component-imports", About: "a component that imports what no container provides",
			Build: func([]byte) *Image {
				content := Component([]string{"wasi:io/poll@0.2.0", "wasi:keyvalue/store@0.2.0"}, []string{"wasi:cli/run@0.2.0"})
				return asLayers("wasi/wasm", entry, []wasm{{wasmComponent, content, ""}}, nil)
			}, Platform: "wasi/wasm",
		},
		{
			Name: "bad-component-library", About: "a component that is no command, and an entry point that names no function of it",
			Build: func([]byte) *Image {
				content := Component(nil, []string{"own:app/api@1.0.0"})
				return asLayers("wasi/wasm", entry, []wasm{{wasmComponent, content, ""}}, nil)
			}, Platform: "wasi/wasm",
		},
		{
			Name: "bad-no-config", About: "a manifest without a config: registries refuse it, a tar can hold it",
			Build: noConfig, Entry: entry,
		},
		{
			Name: "bad-platforms", About: "an index of platforms that no Linux node has",
			Build: func(guest []byte) *Image {
				return index(false, []string{"windows/amd64", "linux/s390x"}, func(p string) *Image {
					return tarImage(p, false, ocispec.ImageConfig{Entrypoint: []string{"/app"}}, map[string][]byte{"app": guest}, nil)
				})
			}, Entry: entry,
		},
	}
}

func noConfig(guest []byte) *Image {
	from := asLayers("wasi/wasm", []string{"app.wasm"}, []wasm{{wasmPlain, guest, ""}}, nil)
	value := from.parsed(from.Root)
	delete(value, "config")
	i := newImage()
	i.add(wasmPlain, guest)
	i.manifest(ocispec.MediaTypeImageManifest, value)
	return i
}

// TooLarge is a Wasm layer of at least size bytes: a module that works, with one more custom section
// of zeros. It is held in memory.
func TooLarge(guest []byte, size int) *Image {
	content := append(slices.Clone(guest), customSection("padding", make([]byte, max(0, size-len(guest))))...)
	return asLayers("wasi/wasm", []string{"app.wasm"}, []wasm{{wasmPlain, content, ""}}, nil)
}

// Bombs are compressed layers that are small and become size bytes of zeros.
func Bombs(size int) []Format {
	zeros := make([]byte, size)
	var formats []Format
	for _, c := range []struct {
		name    string
		content []byte
	}{{"gzip", gzipped(zeros)}, {"zip", zipped("app.wasm", zeros)}, {"zstd", zstded(zeros)}} {
		formats = append(formats, Format{
			Name: "bad-bomb-" + c.name, About: fmt.Sprintf("a layer that becomes %d bytes (%s)", size, c.name),
			Build: func([]byte) *Image {
				return asLayers("wasi/wasm", []string{"app.wasm"}, []wasm{{wasmPlain + "+" + c.name, c.content, ""}}, nil)
			}, Platform: "wasi/wasm",
		})
	}
	return formats
}

// BlobPath is the file of a blob in a containerd with that root folder (its content store is the
// plugin io.containerd.content.v1.content, shared by all namespaces).
func BlobPath(root string, blob digest.Digest) string {
	return filepath.Join(root, "io.containerd.content.v1.content", "blobs", blob.Algorithm().String(), blob.Encoded())
}

// Replace puts other content under a blob's digest, directly in containerd's store. This makes a digest
// mismatch that neither a registry nor a tar can cause, because containerd verifies all content that it
// stores. The size stays the same, as on a disk that fails: content is cut or padded with zeros to the
// blob's size.
func Replace(root string, blob digest.Digest, content []byte) error {
	path := BlobPath(root, blob)
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	whole := make([]byte, info.Size())
	copy(whole, content)
	return renewed(path, whole)
}

// Truncate cuts a blob in containerd's content store to a size.
func Truncate(root string, blob digest.Digest, size int) error {
	path := BlobPath(root, blob)
	content, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if size >= len(content) {
		return fmt.Errorf("blob %s has %d bytes, which cannot be cut to %d", blob, len(content), size)
	}
	return renewed(path, content[:size])
}

// renewed writes a new file, because workers may have mapped the existing one.
func renewed(path string, content []byte) error {
	partial := path + ".partial"
	if err := os.WriteFile(partial, content, 0o444); err != nil {
		return err
	}
	return os.Rename(partial, path)
}

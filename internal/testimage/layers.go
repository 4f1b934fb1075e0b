package testimage

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Media types as the tools that write them spell them.
const (
	dockerManifest = "application/vnd.docker.distribution.manifest.v2+json"
	dockerList     = "application/vnd.docker.distribution.manifest.list.v2+json"
	dockerConfig   = "application/vnd.docker.container.image.v1+json"
	dockerLayer    = "application/vnd.docker.image.rootfs.diff.tar.gzip"

	wasmPlain     = "application/wasm"                                              // IANA, CNCF, wkg, oras
	wasmContent   = "application/vnd.wasm.content.layer.v1+wasm"                    // wasm-to-oci, Solo
	wasmModule    = "application/vnd.w3c.wasm.module.v1+wasm"                       // runwasi's oci-tar-builder, --module
	wasmComponent = "application/vnd.w3c.wasm.component.v1+wasm"                    // its counterpart for components
	wasmRunwasi   = "application/vnd.bytecodealliance.wasm.component.layer.v0+wasm" // runwasi's demo application
	wasmBuilder   = "application/vnd.wasm.component.v1+wasm"                        // oci-tar-builder, --components

	configCNCF   = "application/vnd.wasm.config.v0+json"
	configToOCI  = "application/vnd.wasm.config.v1+json"
	artifactOras = "application/vnd.unknown.artifact.v1" // oras' default
)

func isFiles(mediaType string) bool {
	return strings.HasPrefix(mediaType, "application/vnd.oci.image.layer.") || mediaType == dockerLayer
}

// files returns a tar of the files, with the folders above them, and without times.
func files(content map[string][]byte) []byte {
	var buffer bytes.Buffer
	archive := tar.NewWriter(&buffer)
	seen := map[string]bool{".": true}
	for _, at := range slices.Sorted(maps.Keys(content)) {
		for _, dir := range above(at) {
			if !seen[dir] {
				seen[dir] = true
				must(archive.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: dir + "/", Mode: 0o755}))
			}
		}
		must(writeFile(archive, at, content[at]))
	}
	must(archive.Close())
	return buffer.Bytes()
}

// above returns the parent folders of a path, the outermost first.
func above(at string) []string {
	var dirs []string
	for dir := path.Dir(at); dir != "."; dir = path.Dir(dir) {
		dirs = append([]string{dir}, dirs...)
	}
	return dirs
}

// addFiles stores a compressed file layer and returns its descriptor and its diff
// id.
func (i *Image) addFiles(mediaType string, content map[string][]byte) (ocispec.Descriptor, digest.Digest) {
	plain := files(content)
	return i.add(mediaType, gzipped(plain)), digest.FromBytes(plain)
}

func gzipped(content []byte) []byte {
	var buffer bytes.Buffer
	writer := gzip.NewWriter(&buffer)
	_, err := writer.Write(content)
	must(err)
	must(writer.Close())
	return buffer.Bytes()
}

func zstded(content []byte) []byte {
	encoder, err := zstd.NewWriter(nil)
	must(err)
	defer encoder.Close()
	return encoder.EncodeAll(content, nil)
}

// zipped returns an archive that holds one file.
func zipped(name string, content []byte) []byte {
	var buffer bytes.Buffer
	archive := zip.NewWriter(&buffer)
	file, err := archive.Create(name)
	must(err)
	_, err = file.Write(content)
	must(err)
	must(archive.Close())
	return buffer.Bytes()
}

// must is for writes to memory, which fail only if this package passes invalid
// values.
func must(err error) {
	if err != nil {
		panic(err)
	}
}

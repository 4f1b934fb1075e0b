package testimage

import (
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// CountedLayer is an image whose config lists its Wasm layer among the diff ids, as some tools did:
// containerd counts only file layers.
func CountedLayer(guest []byte) *Image {
	i := newImage()
	layer := i.addWasm(wasm{wasmPlain, guest, ""})
	config := configOf("wasi/wasm", ocispec.ImageConfig{Entrypoint: []string{"app.wasm"}}, []digest.Digest{layer.Digest})
	i.manifest(ocispec.MediaTypeImageManifest,
		manifestOf(ocispec.MediaTypeImageManifest, i.addJSON(ocispec.MediaTypeImageConfig, config), []ocispec.Descriptor{layer}))
	return i
}

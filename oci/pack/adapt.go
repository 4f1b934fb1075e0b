package pack

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/wasmshim/containerd-shim-wasm/entrypoint"
	"github.com/wasmshim/containerd-shim-wasm/oci"
	"github.com/wasmshim/containerd-shim-wasm/oci/blob"
)

// AdaptOptions are the contents of the config of an adapted image.
type AdaptOptions struct {
	Entrypoint []string // names one of several Wasm layers; by default a single layer's title, or /app.wasm if it has none
	Args       []string
	Env        []string // NAME=value
	Platform   string   // os/architecture[/variant]; this machine's by default, so that clients choose it without --platform
}

// Adapt returns an ordinary image that refers to the same layers as a manifest, for tools that refuse the
// manifest's own config. Its blobs are only the new manifest and config. The layers are not copied, so the
// image can only be written to the store that holds the manifest.
func Adapt(ctx context.Context, manifest ocispec.Manifest, source blob.Source, o AdaptOptions) (*Image, error) {
	command, err := o.command(manifest)
	if err != nil {
		return nil, err
	}
	platform, err := parsePlatform(o.Platform)
	if err != nil {
		return nil, err
	}
	diffIDs, unpacking := []digest.Digest{}, blob.NewUnpacking()
	for _, layer := range manifest.Layers {
		if !oci.IsFiles(layer.MediaType) {
			continue
		}
		id, err := diffID(ctx, unpacking, source, layer)
		if err != nil {
			return nil, fmt.Errorf("read layer %s: %w", layer.Digest, err)
		}
		diffIDs = append(diffIDs, id)
	}
	i := &Image{}
	config, err := i.addJSON(ocispec.MediaTypeImageConfig, ocispec.Image{
		Platform: platform,
		Config:   ocispec.ImageConfig{Entrypoint: command, Cmd: o.Args, Env: o.Env, Labels: labels(manifest.Layers)},
		RootFS:   ocispec.RootFS{Type: "layers", DiffIDs: diffIDs},
	})
	if err != nil {
		return nil, err
	}
	refs := append([]ocispec.Descriptor{config}, manifest.Layers...)
	i.Root, err = i.addJSON(ocispec.MediaTypeImageManifest, ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest,
		Config: config, Layers: manifest.Layers, Annotations: manifest.Annotations,
	}, refs...)
	return i, err
}

// command returns the entry point of the new image.
func (o AdaptOptions) command(manifest ocispec.Manifest) ([]string, error) {
	found := oci.Found{Modules: oci.Modules(manifest)}
	if len(found.Modules) == 0 {
		return nil, errors.New("it has no Wasm layer, so there is nothing to adapt: run it as it is")
	}
	if len(o.Entrypoint) > 0 {
		found.Entry = o.Entrypoint[0]
		_, err := found.Select(entrypoint.Parse(found.Entry))
		return o.Entrypoint, err
	}
	m, err := found.Select(entrypoint.Point{})
	if err != nil {
		return nil, err
	}
	if m.Name == "" {
		return []string{"/app.wasm"}, nil
	}
	return []string{m.Name}, nil
}

// diffID returns the digest of the decompressed content of a layer of files
// (https://github.com/opencontainers/image-spec/blob/main/config.md#layer-diffid).
func diffID(ctx context.Context, unpacking *blob.Unpacking, source blob.Source, layer ocispec.Descriptor) (digest.Digest, error) {
	plain, err := unpacking.Open(ctx, source, layer)
	if err != nil {
		return "", err
	}
	defer plain.Close()
	digester := digest.SHA256.Digester()
	_, err = io.Copy(digester.Hash(), plain)
	return digester.Digest(), err
}

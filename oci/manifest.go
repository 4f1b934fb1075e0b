package oci

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/identity"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Limits of manifests and configurations read into memory, in bytes. The distribution specification requires
// registries to accept manifests of at least 4 MiB, and they refuse larger ones.
const (
	MaxManifest = 4 << 20
	MaxConfig   = 4 << 20
)

// Config is the part of an image's or a Wasm artifact's configuration that describes its platform, its files
// and its command.
type Config struct {
	ocispec.Platform
	RootFS struct {
		DiffIDs []digest.Digest `json:"diff_ids"`
	} `json:"rootfs"`
	program
}

// program is the part of a configuration that describes the image's program. Fields in another form than an
// image's configuration has are ignored: artifacts may hold anything there.
type program struct {
	entrypoint, cmd []string
	labels          map[string]string
	layerDigests    []digest.Digest // of an artifact in the CNCF's layout
}

func parseProgram(data []byte) program {
	var raw struct {
		Config       json.RawMessage `json:"config"`
		LayerDigests json.RawMessage `json:"layerDigests"`
	}
	var config ocispec.ImageConfig
	var p program
	if json.Unmarshal(data, &raw) != nil {
		return p
	}
	if json.Unmarshal(raw.Config, &config) == nil {
		p.entrypoint, p.cmd, p.labels = config.Entrypoint, config.Cmd, config.Labels
	}
	if json.Unmarshal(raw.LayerDigests, &p.layerDigests) != nil {
		p.layerDigests = nil
	}
	return p
}

// Entry returns the first word of the image's own command, "" if it has none.
func (c Config) Entry() string {
	if command := slices.Concat(c.entrypoint, c.cmd); len(command) > 0 {
		return command[0]
	}
	return ""
}

// LayersLabel is a label of a configuration. Its value, LayersID of the image's layers, makes the
// configurations of different layers differ. containerd's CRI plugin identifies images by the digests of
// their configurations, which by themselves depend on layers of files (diff_ids) and on no others.
const LayersLabel = "wasm.shim/layers"

// LayersID returns a digest of everything in an image's layers that decides what runs: their content, their
// order, their media types and their names.
func LayersID(layers []ocispec.Descriptor) digest.Digest {
	hash := digest.SHA256.Digester()
	for _, l := range layers {
		fmt.Fprintf(hash.Hash(), "%q %q %d %q\n", l.MediaType, l.Digest, l.Size, l.Annotations[ocispec.AnnotationTitle])
	}
	return hash.Digest()
}

// Layers returns the value of LayersLabel, "" if there is none.
func (c Config) Layers() string { return c.labels[LayersLabel] }

// IsOf reports whether the configuration belongs to these layers and to no others.
func (c Config) IsOf(layers []ocispec.Descriptor) bool {
	if c.Layers() == LayersID(layers).String() {
		return true
	}
	// The CNCF's layout has one layer, so its name cannot be confused with another's, and one media type for
	// it. The same content under another media type is a copy that means something else.
	return len(layers) == 1 && len(c.layerDigests) == 1 && c.layerDigests[0] == layers[0].Digest && layers[0].MediaType == MediaTypeWasm
}

// ParseIndex reads an index or a manifest list, at most MaxManifest bytes. Every digest in the result is
// valid.
func ParseIndex(data []byte) (ocispec.Index, error) {
	var index ocispec.Index
	if err := parse(data, MaxManifest, "index", &index); err != nil {
		return ocispec.Index{}, err
	}
	if index.MediaType != "" && !IsIndex(index.MediaType) {
		return ocispec.Index{}, fmt.Errorf("index says that its media type is %q", index.MediaType)
	}
	for i, d := range index.Manifests {
		if err := check(d); err != nil {
			return ocispec.Index{}, fmt.Errorf("index: manifest %d: %w", i, err)
		}
	}
	return index, nil
}

// ParseManifest reads a manifest, at most MaxManifest bytes. Every digest in the result is valid, and there
// is a configuration.
func ParseManifest(data []byte) (ocispec.Manifest, error) {
	var manifest ocispec.Manifest
	if err := parse(data, MaxManifest, "manifest", &manifest); err != nil {
		return ocispec.Manifest{}, err
	}
	if manifest.MediaType != "" && !IsManifest(manifest.MediaType) {
		return ocispec.Manifest{}, fmt.Errorf("manifest says that its media type is %q", manifest.MediaType)
	}
	if manifest.Config.Digest == "" {
		return ocispec.Manifest{}, errors.New("manifest has no config: it is not an image or a Wasm artifact; push it again with a tool that writes one")
	}
	if err := check(manifest.Config); err != nil {
		return ocispec.Manifest{}, fmt.Errorf("manifest: config: %w", err)
	}
	for i, d := range manifest.Layers {
		if err := check(d); err != nil {
			return ocispec.Manifest{}, fmt.Errorf("manifest: layer %d: %w", i, err)
		}
	}
	return manifest, nil
}

// ParseConfig reads the configuration that a manifest refers to, at most MaxConfig bytes. Of artifacts, it
// reads only those of Wasm: others may put anything there, and it means nothing to us.
func ParseConfig(mediaType string, data []byte) (Config, error) {
	var config Config
	if !IsImageConfig(mediaType) && !IsWasmConfig(mediaType) {
		return config, nil
	}
	if err := parse(data, MaxConfig, "config", &config); err != nil {
		return Config{}, err
	}
	for i, d := range config.RootFS.DiffIDs {
		if err := d.Validate(); err != nil {
			return Config{}, fmt.Errorf("config: diff_id %d: %w", i, err)
		}
	}
	config.program = parseProgram(data)
	return config, nil
}

// parse refuses JSON that another reader could take for something else, a manifest that is also an index, as
// containerd does.
func parse(data []byte, limit int, what string, into any) error {
	if len(data) > limit {
		return fmt.Errorf("%s has %d bytes, the limit is %d", what, len(data), limit)
	}
	if err := json.Unmarshal(data, into); err != nil {
		return fmt.Errorf("%s is not valid: %w", what, err)
	}
	var both struct {
		Manifests json.RawMessage `json:"manifests"`
		Config    json.RawMessage `json:"config"`
		Layers    json.RawMessage `json:"layers"`
		FSLayers  json.RawMessage `json:"fsLayers"`
	}
	if err := json.Unmarshal(data, &both); err != nil {
		return fmt.Errorf("%s is not valid: %w", what, err)
	}
	switch {
	case both.FSLayers != nil && what != "config":
		return fmt.Errorf("%s is of Docker's image format 1, which containerd has given up: build the image again", what)
	case what == "manifest" && both.Manifests != nil, what == "index" && (both.Config != nil || both.Layers != nil):
		return fmt.Errorf("%s is ambiguous: it has what a manifest has and what an index has", what)
	}
	return nil
}

// check makes sure that a descriptor is valid, because its digest becomes part of a path.
func check(d ocispec.Descriptor) error {
	if err := d.Digest.Validate(); err != nil {
		return fmt.Errorf("digest %q: %w", d.Digest, err)
	}
	if d.Size < 0 {
		return fmt.Errorf("%s has a size of %d", d.Digest, d.Size)
	}
	return nil
}

// Modules returns the manifest's Wasm layers in their order, without paths.
func Modules(manifest ocispec.Manifest) []Module {
	var modules []Module
	for _, d := range manifest.Layers {
		compression, ok := IsWasm(d.MediaType)
		if !ok {
			continue
		}
		modules = append(modules, Module{
			Name: d.Annotations[ocispec.AnnotationTitle], Digest: d.Digest, Size: d.Size,
			MediaType: d.MediaType, Compression: compression,
		})
	}
	return modules
}

// ChainID returns the name of the snapshot that a container of this image is made on, "" for an image without
// file layers (image-spec, config.md, Layer ChainID).
func (c Config) ChainID() string { return identity.ChainID(c.RootFS.DiffIDs).String() }

// FormatPlatform returns os/architecture[/variant], "" if there is neither.
func FormatPlatform(p ocispec.Platform) string {
	if p.OS == "" && p.Architecture == "" {
		return ""
	}
	name := p.OS + "/" + p.Architecture
	if p.Variant != "" {
		name += "/" + p.Variant
	}
	return strings.ToLower(name)
}

// WasmPlatforms returns the platforms of Wasm images, the preferred one first. The order only matters if the
// node has several of them with the same layers of files, or with none. The platform of components is last:
// an image with both has the same program in both forms, and images that ran before components were supported
// keep running the same one.
func WasmPlatforms() []string {
	return []string{"wasi/wasm", "wasip1/wasm", "linux/wasm", "wasip2/wasm"}
}

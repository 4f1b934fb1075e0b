package testimage

import (
	"runtime"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Format is one way to ship a Wasm module or component that must run.
type Format struct {
	Name  string // usable as a repository's name
	About string // the tools that make such images, or their special property

	// Build makes the image around a guest: a module unless Component says otherwise.
	Build func(guest []byte) *Image

	// Component says that such images hold components.
	Component bool

	// Entry is the command for a container if the image has none, because its config is not an image's or
	// has an empty entry point. Entry is nil if the image has a command.
	Entry []string

	// Platform is the image's, or the one in an index that a node must choose for Wasm.
	Platform string

	// Asks is the platform that must be requested, as in "ctr images pull --platform", because containerd
	// by default takes another manifest of the index, or none. It is empty for all other formats.
	Asks string

	// ArtifactConfig says that the config is not an image's: "ctr run" refuses it, CRI does not.
	ArtifactConfig bool

	// InTar says that the guest is a file of a tar layer, not a layer itself.
	InTar bool
}

// NeedsCommand reports whether a container needs an explicit command: without one, CRI and ctr refuse it.
func (f Format) NeedsCommand() bool { return f.Entry != nil }

// Native is the platform of this machine.
func Native() string { return "linux/" + runtime.GOARCH }

// Formats returns every format of docs/images.md, in its order.
func Formats() []Format {
	return slices.Concat(tarFormats(), layerFormats(), artifactFormats(), severalFormats(), compressedFormats())
}

// Named returns the format with that name, a good or a bad one, and false if there is none.
func Named(name string) (Format, bool) {
	for _, f := range slices.Concat(Formats(), Bad()) {
		if f.Name == name {
			return f, true
		}
	}
	return Format{}, false
}

// tarFormats are ordinary images with the module as a file.
func tarFormats() []Format {
	var formats []Format
	for _, docker := range []bool{false, true} {
		kind, about := "oci", "an OCI image"
		if docker {
			kind, about = "docker", "a Docker image"
		}
		for _, p := range []string{Native(), "wasi/wasm", "wasip1/wasm", "linux/wasm"} {
			formats = append(formats, Format{
				Name: kind + "-tar-" + strings.ReplaceAll(p, "/", "-"), About: about + " with the module in a tar layer",
				Build: func(guest []byte) *Image { return inTar(guest, p, docker) }, Platform: p, InTar: true,
			})
		}
		formats = append(formats, Format{
			Name: kind + "-index", About: about + " index of Wasm and native platforms, the module in tar layers",
			Build: func(guest []byte) *Image {
				return index(docker, []string{Native(), "wasi/wasm", "wasip1/wasm", "linux/wasm"}, func(p string) *Image { return inTar(guest, p, docker) })
			}, Platform: Native(), InTar: true,
		})
	}
	for _, p := range []string{Native(), "wasip2/wasm"} {
		formats = append(formats, Format{
			Name: "component-tar-" + strings.ReplaceAll(p, "/", "-"), About: "an OCI image with a component in a tar layer",
			Build: func(guest []byte) *Image { return inTar(guest, p, false) }, Component: true, Platform: p, InTar: true,
		})
	}
	return append(formats,
		Format{
			Name: "compat", About: "Istio's and Solo's compat variant: /plugin.wasm in a tar layer, no entry point",
			Build: compat, Platform: Native(), Entry: []string{"/plugin.wasm"}, InTar: true,
		},
		Format{
			Name: "crun", About: "crun's and buildah's: the annotation run.oci.handler=wasm, a tar layer",
			Build: crun, Platform: "wasi/wasm", InTar: true,
		},
	)
}

// layerFormats have an image's config and the module as a layer.
func layerFormats() []Format {
	var formats []Format
	for _, layer := range []struct {
		name, mediaType, about string
		component              bool
	}{
		{"application-wasm", wasmPlain, "Docker's and the CNCF's type", false},
		{"wasm-content", wasmContent, "wasm-to-oci's type", false},
		{"w3c-module", wasmModule, "the type of runwasi's oci-tar-builder for modules", false},
		{"w3c-component", wasmComponent, "type application/vnd.w3c.wasm.component.v1+wasm: a component", true},
		{"bytecodealliance", wasmRunwasi, "runwasi's type: a component", true},
		{"bytecodealliance-module", wasmRunwasi, "runwasi's type, which is a component's: a module, as in runwasi's own images", false},
		{"runwasi-component", wasmBuilder, "the type of runwasi's oci-tar-builder for components", true},
	} {
		formats = append(formats, Format{
			Name: "layer-" + layer.name, About: "an image config and a Wasm layer of " + layer.about,
			Build: func(guest []byte) *Image {
				return asLayers("wasi/wasm", []string{"app.wasm"}, []wasm{{layer.mediaType, guest, ""}}, nil)
			}, Component: layer.component, Platform: "wasi/wasm",
		})
	}
	for _, p := range []string{Native(), "wasip1/wasm", "linux/wasm"} {
		formats = append(formats, Format{
			Name: "layer-" + strings.ReplaceAll(p, "/", "-"), About: "an image config for " + p + " and a Wasm layer",
			Build: func(guest []byte) *Image {
				return asLayers(p, []string{"app.wasm"}, []wasm{{wasmPlain, guest, ""}}, nil)
			}, Platform: p,
		})
	}
	formats = append(formats, Format{
		Name: "layer-wasip2-wasm", About: "an image config for wasip2/wasm and a Wasm layer that is a component",
		Build: func(guest []byte) *Image {
			return asLayers("wasip2/wasm", []string{"app.wasm"}, []wasm{{wasmPlain, guest, ""}}, nil)
		}, Component: true, Platform: "wasip2/wasm",
	})
	return append(formats,
		Format{
			Name: "layer-runwasi", About: "as runwasi's oci-tar-builder writes it: an empty entry point",
			Build: func(guest []byte) *Image {
				return asLayers("wasi/wasm", []string{""}, []wasm{{wasmModule, guest, ""}}, nil)
			}, Platform: "wasi/wasm", Entry: []string{"app.wasm"},
		},
		Format{
			Name: "layer-index", About: "an index of Wasm layers for several platforms, this machine's among them",
			Build: func(guest []byte) *Image { return layerIndex(guest, Native(), "wasi/wasm", "wasip1/wasm") }, Platform: Native(),
		},
		Format{
			Name: "layer-index-foreign", About: "an index of Wasm layers for Wasm platforms only",
			Build: func(guest []byte) *Image { return layerIndex(guest, "wasi/wasm", "wasip1/wasm") }, Platform: "wasi/wasm", Asks: "wasi/wasm",
		},
		Format{
			Name: "layer-index-native", About: "an index of Wasm layers beside a native image of another program",
			Build: nativeIndex, Platform: "wasi/wasm", Asks: "wasi/wasm",
		},
	)
}

// artifactFormats have a config that is not an image's.
func artifactFormats() []Format {
	entry := []string{"app.wasm"}
	return []Format{
		{
			Name: "artifact-wkg", About: "the CNCF's layout as wkg pushes it: a component",
			Build: wkg, Component: true, Platform: "wasip2/wasm", Entry: entry, ArtifactConfig: true,
		},
		{
			Name: "artifact-oras-config", About: "the CNCF's layout as oras push --config …:application/vnd.wasm.config.v0+json makes it",
			Build: orasWithConfig, Platform: "wasip1/wasm", Entry: entry, ArtifactConfig: true,
		},
		{
			Name: "artifact-oras", About: "oras push app.wasm:application/wasm: an empty config",
			Build: oras, Entry: entry, ArtifactConfig: true,
		},
		{
			Name: "artifact-wasm-to-oci", About: "wasm-to-oci push",
			Build: wasmToOCI, Entry: entry, ArtifactConfig: true,
		},
	}
}

// severalFormats have more than one module, or files beside it.
func severalFormats() []Format {
	return []Format{
		{
			Name: "several", About: "two Wasm layers with titles and a tar layer; the entry point names one",
			Build: func(guest []byte) *Image {
				layers := []wasm{{wasmPlain, other(guest), "other.wasm"}, {wasmPlain, guest, "app.wasm"}}
				return asLayers("wasi/wasm", []string{"/app.wasm"}, layers, sideFiles())
			}, Platform: "wasi/wasm",
		},
		{
			Name: "layer-and-files", About: "one Wasm layer and a tar layer, which is the root file system",
			Build: func(guest []byte) *Image {
				return asLayers(Native(), []string{"app.wasm"}, []wasm{{wasmPlain, guest, ""}}, sideFiles())
			}, Platform: Native(),
		},
	}
}

// compressedFormats have a layer whose media type says that it is compressed.
func compressedFormats() []Format {
	var formats []Format
	for name, compress := range map[string]func([]byte) []byte{
		"gzip": gzipped, "zstd": zstded, "zip": func(guest []byte) []byte { return zipped("app.wasm", guest) },
	} {
		formats = append(formats, Format{
			Name: "layer-" + name, About: "an image config and a Wasm layer that is compressed (" + name + ")",
			Build: func(guest []byte) *Image {
				return asLayers("wasi/wasm", []string{"app.wasm"}, []wasm{{wasmPlain + "+" + name, compress(guest), ""}}, nil)
			}, Platform: "wasi/wasm",
		})
	}
	slices.SortFunc(formats, func(a, b Format) int { return strings.Compare(a.Name, b.Name) })
	return formats
}

// SideFile and SideText are a file beside the module in the formats that have one.
const (
	SideFile = "etc/greeting.txt"
	SideText = "hello from a file layer\n"
)

func sideFiles() map[string][]byte { return map[string][]byte{SideFile: []byte(SideText)} }

// other returns a module that differs from guest: with one more custom section.
func other(guest []byte) []byte { return append(slices.Clone(guest), customSection("other", nil)...) }

// customSection is a section that does not change a module's behaviour
// (https://webassembly.github.io/spec/core/binary/modules.html#custom-section).
func customSection(name string, content []byte) []byte {
	body := append(append([]byte{byte(len(name))}, name...), content...)
	return append(append([]byte{0}, leb128(len(body))...), body...)
}

func leb128(n int) []byte {
	var bytes []byte
	for {
		low := byte(n & 0x7f)
		if n >>= 7; n == 0 {
			return append(bytes, low)
		}
		bytes = append(bytes, low|0x80)
	}
}

// manifestOf is a manifest of an image, without the fields that no format here has.
func manifestOf(mediaType string, config ocispec.Descriptor, layers []ocispec.Descriptor) ocispec.Manifest {
	return ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: mediaType, Config: config, Layers: layers,
	}
}

// configOf is the config of an image. diffIDs may be empty, never null.
func configOf(p string, config ocispec.ImageConfig, diffIDs []digest.Digest) ocispec.Image {
	if diffIDs == nil {
		diffIDs = []digest.Digest{}
	}
	return ocispec.Image{
		Platform: platform(p), Config: config,
		RootFS: ocispec.RootFS{Type: "layers", DiffIDs: diffIDs},
	}
}

func platform(p string) ocispec.Platform {
	system, architecture, _ := strings.Cut(p, "/")
	return ocispec.Platform{OS: system, Architecture: architecture}
}

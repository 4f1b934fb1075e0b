package pack

import (
	"fmt"
	"runtime"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/wasmshim/containerd-shim-wasm/oci"
)

// Format is a way to ship Wasm.
type Format struct {
	Name  string
	About string // one line for the user

	carrier   carrier
	platform  string // by default; "" is this machine's
	manifest  string // media types
	config    string
	files     string // of file layers, without the suffix for how they are compressed
	mediaType string // of Wasm layers by default
	file      string // the module's name in the image; its file's name by default
	noEntry   bool   // an entry point is not part of the format, but may be given
	notes     map[string]string
	artifact  string // artifactType
	noType    bool   // the manifest does not repeat its media type
}

// carrier is the part of an image that holds a module.
type carrier int

const (
	inFiles    carrier = iota // in a layer of files
	inLayer                   // it is a layer
	inArtifact                // it is a layer, and the config is not an image config
)

const (
	dockerManifest = "application/vnd.docker.distribution.manifest.v2+json"
	dockerConfig   = "application/vnd.docker.container.image.v1+json"
	dockerFiles    = "application/vnd.docker.image.rootfs.diff.tar"
	// orasArtifact is the artifact type that "oras push" uses by default.
	orasArtifact = "application/vnd.unknown.artifact.v1"
	// orasConfig is the media type that oras before 1.1 gave to an empty config. Today it is
	// application/vnd.oci.empty.v1+json, whose content must be {} in every artifact: CRI would take all of
	// them for one image.
	orasConfig = "application/vnd.unknown.config.v1+json"
)

var (
	ociImage = Format{manifest: ocispec.MediaTypeImageManifest, config: ocispec.MediaTypeImageConfig, files: ocispec.MediaTypeImageLayer, mediaType: oci.MediaTypeWasm}

	formats = []Format{
		ociImage.with("image", "an OCI image with the module as a file; runs everywhere", func(f *Format) {}),
		ociImage.with("docker", "the same as a Docker image", func(f *Format) {
			f.manifest, f.config, f.files = dockerManifest, dockerConfig, dockerFiles
		}),
		ociImage.with("layer", "an OCI image whose layer is the module; --media-type says which kind", func(f *Format) {
			f.carrier, f.platform = inLayer, "wasi/wasm"
		}),
		ociImage.with("runwasi", "the same with runwasi's media type", func(f *Format) {
			f.carrier, f.platform, f.mediaType = inLayer, "wasi/wasm", oci.MediaTypeBytecodeAlliance
		}),
		ociImage.with("artifact", "a Wasm artifact in the CNCF's layout, as wkg pushes it", func(f *Format) {
			f.carrier, f.config = inArtifact, oci.MediaTypeWasmConfigV0 // its platform depends on its content
		}),
		ociImage.with("oras", "an artifact as oras pushes it, but for its config, which is not empty", func(f *Format) {
			f.carrier, f.config, f.artifact = inArtifact, orasConfig, orasArtifact
		}),
		ociImage.with("wasm-to-oci", "an artifact as wasm-to-oci pushes it", func(f *Format) {
			f.carrier, f.config, f.mediaType, f.noType = inArtifact, oci.MediaTypeWasmConfigV1, oci.MediaTypeWasmContent, true
		}),
		ociImage.with("compat", "an image of Istio's compat variant: /plugin.wasm as a file, no entry point", func(f *Format) {
			f.file, f.noEntry = "plugin.wasm", true
			f.notes = map[string]string{"module.wasm.image/variant": "compat"} // https://github.com/solo-io/wasm/tree/master/spec
		}),
		ociImage.with("crun", "an image with the annotation by which crun knows Wasm", func(f *Format) {
			f.platform = "wasi/wasm"
			f.notes = map[string]string{"run.oci.handler": "wasm"} // crun.1
		}),
	}
)

// binaries are the media types that distinguish modules from components. The others are for both; runwasi's
// has "component" in its name, but runwasi's tools use it for modules, too.
var binaries = map[string]oci.Content{
	oci.MediaTypeW3CModule:        oci.WasmModule,
	oci.MediaTypeW3CComponent:     oci.WasmComponent,
	oci.MediaTypeRunwasiComponent: oci.WasmComponent,
}

// typeOf returns the media type to suggest for content that was given the other kind's media type.
func typeOf(content oci.Content) string {
	if content == oci.WasmComponent {
		return oci.MediaTypeW3CComponent
	}
	return oci.MediaTypeW3CModule
}

func (f Format) with(name, about string, change func(*Format)) Format {
	f.Name, f.About = name, about
	change(&f)
	return f
}

// Formats returns all formats, the default one first.
func Formats() []Format { return append([]Format(nil), formats...) }

// FormatNamed returns a format by its name, and an error that lists them if there is none.
func FormatNamed(name string) (Format, error) {
	var names []string
	for _, f := range formats {
		if f.Name == name {
			return f, nil
		}
		names = append(names, f.Name)
	}
	return Format{}, fmt.Errorf("unknown format %q: give one of %s", name, strings.Join(names, ", "))
}

// parsePlatform reads os/architecture[/variant].
func parsePlatform(text string) (ocispec.Platform, error) {
	if text == "" {
		text = "linux/" + runtime.GOARCH
	}
	parts := strings.Split(text, "/")
	if len(parts) < 2 || len(parts) > 3 {
		return ocispec.Platform{}, fmt.Errorf("platform %q is not of the form os/architecture[/variant], as in wasi/wasm or linux/amd64", text)
	}
	for _, part := range parts {
		if part == "" || strings.Trim(part, "abcdefghijklmnopqrstuvwxyz0123456789_.-") != "" {
			return ocispec.Platform{}, fmt.Errorf("platform %q has a part that is empty or has other characters than a-z, 0-9, '_', '.' and '-'", text)
		}
	}
	p := ocispec.Platform{OS: parts[0], Architecture: parts[1]}
	if len(parts) == 3 {
		p.Variant = parts[2]
	}
	return p, nil
}

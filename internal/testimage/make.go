package testimage

import (
	"encoding/json"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// created is the creation time for formats whose tools always set one.
var created = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// inTar is an ordinary image with the module as /app.wasm.
func inTar(guest []byte, p string, docker bool) *Image {
	config := ocispec.ImageConfig{Entrypoint: []string{"/app.wasm"}}
	return tarImage(p, docker, config, map[string][]byte{"app.wasm": guest, SideFile: []byte(SideText)}, nil)
}

func tarImage(p string, docker bool, config ocispec.ImageConfig, content map[string][]byte, annotations map[string]string) *Image {
	i := newImage()
	manifestType, configType, layerType := ocispec.MediaTypeImageManifest, ocispec.MediaTypeImageConfig, ocispec.MediaTypeImageLayerGzip
	if docker {
		manifestType, configType, layerType = dockerManifest, dockerConfig, dockerLayer
	}
	layer, diffID := i.addFiles(layerType, content)
	manifest := manifestOf(manifestType, i.addJSON(configType, configOf(p, config, []digest.Digest{diffID})), []ocispec.Descriptor{layer})
	manifest.Annotations = annotations
	i.manifest(manifestType, manifest)
	return i
}

// compat is https://github.com/solo-io/wasm/blob/master/spec/spec-compat.md.
func compat(guest []byte) *Image {
	return tarImage(Native(), false, ocispec.ImageConfig{},
		map[string][]byte{"plugin.wasm": guest, "runtime-config.json": []byte("{}\n")},
		map[string]string{"module.wasm.image/variant": "compat"})
}

// crun is what "buildah build --annotation run.oci.handler=wasm --platform wasi/wasm" makes.
func crun(guest []byte) *Image {
	return tarImage("wasi/wasm", false, ocispec.ImageConfig{Entrypoint: []string{"/app.wasm"}},
		map[string][]byte{"app.wasm": guest}, map[string]string{"run.oci.handler": "wasm"})
}

// index holds an image for each platform.
func index(docker bool, platforms []string, build func(p string) *Image) *Image {
	i := newImage()
	mediaType := ocispec.MediaTypeImageIndex
	if docker {
		mediaType = dockerList
	}
	var manifests []ocispec.Descriptor
	for _, p := range platforms {
		d := i.merge(build(p))
		its := platform(p)
		d.Platform = &its
		manifests = append(manifests, d)
	}
	i.manifest(mediaType, ocispec.Index{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: mediaType, Manifests: manifests,
	})
	return i
}

// wasm is a layer that is Wasm.
type wasm struct {
	mediaType string
	content   []byte
	title     string // the file's name, "" for none
}

// asLayers has the config of an image. containerd requires a diff id in it for each file layer, and
// for no other layer: otherwise it refuses the image as mismatched (rootfs.go of its client).
func asLayers(p string, entrypoint []string, modules []wasm, content map[string][]byte) *Image {
	i := newImage()
	var layers []ocispec.Descriptor
	var diffIDs []digest.Digest
	if content != nil {
		layer, diffID := i.addFiles(ocispec.MediaTypeImageLayerGzip, content)
		layers, diffIDs = append(layers, layer), append(diffIDs, diffID)
	}
	for _, m := range modules {
		layers = append(layers, i.addWasm(m))
	}
	config := i.addJSON(ocispec.MediaTypeImageConfig, configOf(p, ocispec.ImageConfig{Entrypoint: entrypoint}, diffIDs))
	i.manifest(ocispec.MediaTypeImageManifest, manifestOf(ocispec.MediaTypeImageManifest, config, layers))
	return i
}

func (i *Image) addWasm(m wasm) ocispec.Descriptor {
	layer := i.add(m.mediaType, m.content)
	if m.title != "" {
		layer.Annotations = map[string]string{ocispec.AnnotationTitle: m.title}
	}
	return layer
}

func layerIndex(guest []byte, platforms ...string) *Image {
	return index(false, platforms, func(p string) *Image {
		return asLayers(p, []string{"app.wasm"}, []wasm{{wasmPlain, guest, ""}}, nil)
	})
}

func nativeIndex(guest []byte) *Image {
	return index(false, []string{Native(), "wasi/wasm"}, func(p string) *Image {
		if p == Native() {
			return tarImage(p, false, ocispec.ImageConfig{Entrypoint: []string{"/bin/app"}},
				map[string][]byte{"bin/app": []byte("not what a Wasm node runs\n")}, nil)
		}
		return asLayers(p, []string{"app.wasm"}, []wasm{{wasmPlain, guest, ""}}, nil)
	})
}

// cncfConfig is https://tag-runtime.cncf.io/wgs/wasm/deliverables/wasm-oci-artifact/ as wkg writes it.
// wkg leaves a component's target open.
func cncfConfig(guest []byte) map[string]any {
	config := map[string]any{
		"created": created, "author": nil, "architecture": "wasm", "os": "wasip1",
		"layerDigests": []digest.Digest{digest.FromBytes(guest)}, "component": nil,
	}
	if isComponent(guest) {
		imports, exports := interfaces(guest)
		config["os"], config["component"] = "wasip2", map[string]any{"exports": exports, "imports": imports, "target": nil}
	}
	return config
}

// wkg is "wkg oci push": no titles, no artifact type, annotations about the package.
func wkg(guest []byte) *Image {
	i := newImage()
	config := i.addJSON(configCNCF, cncfConfig(guest))
	manifest := manifestOf(ocispec.MediaTypeImageManifest, config, []ocispec.Descriptor{i.addWasm(wasm{wasmPlain, guest, ""})})
	manifest.Annotations = map[string]string{
		ocispec.AnnotationCreated: created.Format(time.RFC3339), ocispec.AnnotationVersion: "1.0.0",
	}
	i.manifest(ocispec.MediaTypeImageManifest, manifest)
	return i
}

// orasWithConfig is "oras push --config config.json:application/vnd.wasm.config.v0+json REF
// app.wasm:application/wasm": the file's name is a title, and there is no artifact type.
func orasWithConfig(guest []byte) *Image {
	i := newImage()
	config := i.addJSON(configCNCF, cncfConfig(guest))
	manifest := manifestOf(ocispec.MediaTypeImageManifest, config, []ocispec.Descriptor{i.addWasm(wasm{wasmPlain, guest, "app.wasm"})})
	manifest.Annotations = map[string]string{ocispec.AnnotationCreated: created.Format(time.RFC3339)}
	i.manifest(ocispec.MediaTypeImageManifest, manifest)
	return i
}

// oras is "oras push REF app.wasm:application/wasm": the empty config of image-spec 1.1, which is also
// embedded, and an artifact type.
func oras(guest []byte) *Image {
	i := newImage()
	config := i.add(ocispec.MediaTypeEmptyJSON, []byte("{}"))
	config.Data = []byte("{}")
	manifest := manifestOf(ocispec.MediaTypeImageManifest, config, []ocispec.Descriptor{i.addWasm(wasm{wasmPlain, guest, "app.wasm"})})
	manifest.ArtifactType = artifactOras
	manifest.Annotations = map[string]string{ocispec.AnnotationCreated: created.Format(time.RFC3339)}
	i.manifest(ocispec.MediaTypeImageManifest, manifest)
	return i
}

// wasmToOCI is "wasm-to-oci push app.wasm REF": a manifest without a media type of its own, as its
// library wrote manifests before image-spec 1.1.
func wasmToOCI(guest []byte) *Image {
	i := newImage()
	config := i.add(configToOCI, []byte("{}"))
	layer := i.addWasm(wasm{wasmContent, guest, "app.wasm"})
	i.manifest(ocispec.MediaTypeImageManifest, manifestOf("", config, []ocispec.Descriptor{layer}))
	return i
}

// parsed returns a manifest of the image that can be changed and written again.
func (i *Image) parsed(d ocispec.Descriptor) map[string]any {
	var value map[string]any
	must(json.Unmarshal(i.Blobs[d.Digest], &value))
	return value
}

// WithConfig is an image with the configuration of another image and a guest that does not match it.
func WithConfig(config, guest []byte) *Image {
	i := newImage()
	layer := i.addWasm(wasm{wasmPlain, guest, "app.wasm"})
	d := i.add(ocispec.MediaTypeImageConfig, config)
	i.manifest(ocispec.MediaTypeImageManifest, manifestOf(ocispec.MediaTypeImageManifest, d, []ocispec.Descriptor{layer}))
	return i
}

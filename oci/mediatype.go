package oci

import (
	"slices"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Media types of layers that hold one Wasm module or component and nothing else. Only the content
// distinguishes the two: tools use each media type for both.
const (
	// MediaTypeWasm is registered with IANA; the CNCF's layout uses it
	// (https://tag-runtime.cncf.io/wgs/wasm/deliverables/wasm-oci-artifact/).
	MediaTypeWasm = "application/wasm"
	// MediaTypeWasmContent is the media type of wasm-to-oci and of the Istio and Solo tools
	// (https://github.com/engineerd/wasm-to-oci, https://github.com/solo-io/wasm/tree/master/spec).
	MediaTypeWasmContent = "application/vnd.wasm.content.layer.v1+wasm"
	// MediaTypeW3CModule and MediaTypeW3CComponent are meant to distinguish the two.
	MediaTypeW3CModule    = "application/vnd.w3c.wasm.module.v1+wasm"
	MediaTypeW3CComponent = "application/vnd.w3c.wasm.component.v1+wasm"
	// MediaTypeBytecodeAlliance is written by runwasi's oci-tar-builder, for modules too
	// (https://github.com/containerd/runwasi/tree/main/crates/oci-tar-builder). runwasi's shims accept only
	// this and MediaTypeWasm.
	MediaTypeBytecodeAlliance = "application/vnd.bytecodealliance.wasm.component.layer.v0+wasm"
	// MediaTypeRunwasiComponent is written by the option --components of oci-tar-builder.
	MediaTypeRunwasiComponent = "application/vnd.wasm.component.v1+wasm"
)

// Media types of the configurations of Wasm artifacts.
const (
	MediaTypeWasmConfigV0 = "application/vnd.wasm.config.v0+json" // the CNCF's layout
	MediaTypeWasmConfigV1 = "application/vnd.wasm.config.v1+json" // wasm-to-oci's
)

// Media types of Docker's image format
// (https://distribution.github.io/distribution/spec/manifest-v2-2/).
const (
	mediaTypeDockerManifest = "application/vnd.docker.distribution.manifest.v2+json"
	mediaTypeDockerList     = "application/vnd.docker.distribution.manifest.list.v2+json"
	mediaTypeDockerConfig   = "application/vnd.docker.container.image.v1+json"
	dockerLayerPrefix       = "application/vnd.docker.image.rootfs."
	ociLayerPrefix          = "application/vnd.oci.image.layer."
)

// WasmMediaTypes returns the media types of Wasm layers, without their compressed forms.
func WasmMediaTypes() []string {
	return []string{MediaTypeWasm, MediaTypeWasmContent, MediaTypeW3CModule, MediaTypeW3CComponent, MediaTypeBytecodeAlliance, MediaTypeRunwasiComponent}
}

// compressions are the suffixes that a media type may have (RFC 6839, RFC 9659).
var compressions = []string{"gzip", "zstd", "zip"}

// IsWasm reports whether a layer of this media type is Wasm, and how it is compressed: "", "gzip", "zstd" or
// "zip". It ignores the case and the parameters of the media type (RFC 6838, section 4.2).
func IsWasm(mediaType string) (compression string, ok bool) {
	plain := essence(mediaType)
	for _, c := range compressions {
		if rest, found := strings.CutSuffix(plain, "+"+c); found {
			plain, compression = rest, c
			break
		}
	}
	if !slices.Contains(WasmMediaTypes(), plain) {
		return "", false
	}
	return compression, true
}

func essence(mediaType string) string {
	plain, _, _ := strings.Cut(mediaType, ";")
	return strings.ToLower(strings.TrimSpace(plain))
}

// IsFiles reports whether a layer of this media type is an archive of files, which containerd unpacks.
func IsFiles(mediaType string) bool {
	plain := essence(mediaType)
	return strings.HasPrefix(plain, ociLayerPrefix) || strings.HasPrefix(plain, dockerLayerPrefix)
}

// IsManifest reports whether this is the media type of an image's manifest.
func IsManifest(mediaType string) bool {
	return mediaType == ocispec.MediaTypeImageManifest || mediaType == mediaTypeDockerManifest
}

// IsIndex reports whether this is the media type of an index or of Docker's manifest list.
func IsIndex(mediaType string) bool {
	return mediaType == ocispec.MediaTypeImageIndex || mediaType == mediaTypeDockerList
}

// IsImageConfig reports whether this is the media type of an ordinary image's configuration, the only one
// that ctr run accepts.
func IsImageConfig(mediaType string) bool {
	return mediaType == ocispec.MediaTypeImageConfig || mediaType == mediaTypeDockerConfig
}

// IsWasmConfig reports whether this is the media type of a Wasm artifact's configuration.
func IsWasmConfig(mediaType string) bool {
	return mediaType == MediaTypeWasmConfigV0 || mediaType == MediaTypeWasmConfigV1
}

// IsAttestation reports whether an entry of an index is not an image but describes another entry; BuildKit
// adds such entries (https://github.com/moby/buildkit/blob/master/docs/attestations/attestation-storage.md).
func IsAttestation(d ocispec.Descriptor) bool {
	return d.Annotations["vnd.docker.reference.type"] != ""
}

package oci

import (
	"slices"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Media types of layers that hold one Wasm module or component and nothing else. Which of the two
// it is, the content alone says: tools give either to both.
const (
	// MediaTypeWasm is registered with IANA and what the CNCF's layout uses
	// (https://tag-runtime.cncf.io/wgs/wasm/deliverables/wasm-oci-artifact/).
	MediaTypeWasm = "application/wasm"
	// MediaTypeWasmContent is wasm-to-oci's, and that of the Istio and Solo tools
	// (https://github.com/engineerd/wasm-to-oci, https://github.com/solo-io/wasm/tree/master/spec).
	MediaTypeWasmContent = "application/vnd.wasm.content.layer.v1+wasm"
	// MediaTypeW3CModule and MediaTypeW3CComponent are meant to tell the two apart.
	MediaTypeW3CModule    = "application/vnd.w3c.wasm.module.v1+wasm"
	MediaTypeW3CComponent = "application/vnd.w3c.wasm.component.v1+wasm"
	// MediaTypeBytecodeAlliance is what runwasi's oci-tar-builder writes, for modules
	// too (https://github.com/containerd/runwasi/tree/main/crates/oci-tar-builder).
	// Together with MediaTypeWasm it is all that runwasi's shims accept.
	MediaTypeBytecodeAlliance = "application/vnd.bytecodealliance.wasm.component.layer.v0+wasm"
	// MediaTypeRunwasiComponent is what its option --components writes.
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

// compressions are the suffixes that a media type may end in (RFC 6839, RFC 9659).
var compressions = []string{"gzip", "zstd", "zip"}

// IsWasm says whether a layer of this media type is Wasm, and how it is compressed:
// "", "gzip", "zstd" or "zip". Case and parameters of a media type mean nothing
// (RFC 6838, section 4.2).
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

// IsFiles says whether a layer of this media type is an archive of files, which
// containerd unpacks.
func IsFiles(mediaType string) bool {
	plain := essence(mediaType)
	return strings.HasPrefix(plain, ociLayerPrefix) || strings.HasPrefix(plain, dockerLayerPrefix)
}

// IsManifest says whether this is the media type of an image's manifest.
func IsManifest(mediaType string) bool {
	return mediaType == ocispec.MediaTypeImageManifest || mediaType == mediaTypeDockerManifest
}

// IsIndex says whether this is the media type of an index or of Docker's manifest list.
func IsIndex(mediaType string) bool {
	return mediaType == ocispec.MediaTypeImageIndex || mediaType == mediaTypeDockerList
}

// IsImageConfig says whether this is the media type of an ordinary image's
// configuration, the only one that ctr run accepts.
func IsImageConfig(mediaType string) bool {
	return mediaType == ocispec.MediaTypeImageConfig || mediaType == mediaTypeDockerConfig
}

// IsWasmConfig says whether this is the media type of a Wasm artifact's configuration.
func IsWasmConfig(mediaType string) bool {
	return mediaType == MediaTypeWasmConfigV0 || mediaType == MediaTypeWasmConfigV1
}

// IsAttestation reports whether an entry of an index describes another of its entries, as BuildKit adds some,
// and is no image (https://github.com/moby/buildkit/blob/master/docs/attestations/attestation-storage.md).
func IsAttestation(d ocispec.Descriptor) bool {
	return d.Annotations["vnd.docker.reference.type"] != ""
}

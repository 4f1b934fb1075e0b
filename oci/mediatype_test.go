package oci_test

import (
	"testing"

	"github.com/wasmshim/containerd-shim-wasm/oci"
)

func TestIsWasm(t *testing.T) {
	for _, plain := range oci.WasmMediaTypes() {
		for suffix, want := range map[string]string{"": "", "+gzip": "gzip", "+zstd": "zstd", "+zip": "zip"} {
			if got, ok := oci.IsWasm(plain + suffix); !ok || got != want {
				t.Errorf("%s: %q, %t; want %q", plain+suffix, got, ok, want)
			}
		}
		if oci.IsFiles(plain) {
			t.Errorf("%s is taken for an archive of files", plain)
		}
	}
	for _, mediaType := range []string{"Application/WASM", "application/wasm; charset=binary", " application/wasm "} {
		if compression, ok := oci.IsWasm(mediaType); !ok || compression != "" {
			t.Errorf("%q: %q, %t", mediaType, compression, ok)
		}
	}
	for _, mediaType := range []string{
		"", "+gzip", "application/wasm+xz", "application/wasm+gzip+gzip", "application/wasmx", "text/wasm", "application/octet-stream",
		oci.MediaTypeWasmConfigV0, oci.MediaTypeWasmConfigV1, "application/vnd.oci.image.layer.v1.tar+gzip",
	} {
		if compression, ok := oci.IsWasm(mediaType); ok {
			t.Errorf("%q is taken for Wasm, compressed by %q", mediaType, compression)
		}
	}
}

func TestIsFiles(t *testing.T) {
	for _, mediaType := range []string{
		"application/vnd.oci.image.layer.v1.tar", "application/vnd.oci.image.layer.v1.tar+zstd",
		"application/vnd.docker.image.rootfs.diff.tar.gzip", "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
	} {
		if !oci.IsFiles(mediaType) {
			t.Errorf("%s is not taken for an archive of files", mediaType)
		}
	}
	for _, mediaType := range []string{"", "application/vnd.oci.image.config.v1+json", "application/x-tar"} {
		if oci.IsFiles(mediaType) {
			t.Errorf("%q is taken for an archive of files", mediaType)
		}
	}
}

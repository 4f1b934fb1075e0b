package oci_test

import (
	"os"
	"regexp"
	"slices"
	"strings"
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

// docs/images.md lists the media types of Wasm layers and how they may be compressed: no more and no fewer.
func TestDocumentedMediaTypes(t *testing.T) {
	text, err := os.ReadFile("../docs/images.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, found := strings.Cut(string(text), "| media type of the layer | written by |\n")
	if !found {
		t.Fatal("docs/images.md has no table of media types")
	}
	table, _, _ = strings.Cut(table, "\n\n")
	var plain, compressed []string
	for _, match := range regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(table, -1) {
		switch name := match[1]; {
		case strings.HasPrefix(name, "application/"):
			plain = append(plain, name)
		case strings.HasPrefix(name, "+"):
			compressed = append(compressed, name[1:])
		}
	}
	want := oci.WasmMediaTypes()
	slices.Sort(plain)
	slices.Sort(want)
	if !slices.Equal(plain, want) {
		t.Errorf("docs/images.md lists\n%q\nthe shim runs\n%q", plain, want)
	}
	if len(compressed) != 3 {
		t.Errorf("docs/images.md lists the compressions %q", compressed)
	}
	for _, suffix := range compressed {
		if got, ok := oci.IsWasm(want[0] + "+" + suffix); !ok || got != suffix {
			t.Errorf("%s: %q, %v", suffix, got, ok)
		}
	}
}

package oci_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/wasmshim/containerd-shim-wasm/entrypoint"
	"github.com/wasmshim/containerd-shim-wasm/oci"
)

var (
	one = digest.FromString("one")
	two = digest.FromString("two")
)

func descriptor(mediaType string, d digest.Digest) string {
	return fmt.Sprintf(`{"mediaType":%q,"digest":%q,"size":3,"annotations":{"org.opencontainers.image.title":"app.wasm"}}`, mediaType, d)
}

func TestParseManifest(t *testing.T) {
	config := descriptor(ocispec.MediaTypeImageConfig, one)
	text := `{"schemaVersion":2,"config":` + config + `,"layers":[` +
		descriptor(ocispec.MediaTypeImageLayerGzip, one) + "," + descriptor(oci.MediaTypeWasmContent+"+zstd", two) + `]}`
	manifest, err := oci.ParseManifest([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	modules := oci.Modules(manifest)
	want := oci.Module{Name: "app.wasm", Digest: two, Size: 3, MediaType: oci.MediaTypeWasmContent + "+zstd", Compression: "zstd"}
	if len(modules) != 1 || modules[0] != want {
		t.Errorf("got %+v, want %+v", modules, want)
	}
}

func TestParseManifestRefuses(t *testing.T) {
	config := descriptor(ocispec.MediaTypeImageConfig, one)
	for text, word := range map[string]string{
		``:                            "not valid",
		`[]`:                          "not valid",
		`{"config":` + config:         "not valid",
		`{}`:                          "no config",
		`{"layers":[]}`:               "no config",
		`{"config":{"digest":"md5"}}`: `digest "md5"`,
		`{"config":{"digest":"sha256:../../../etc/passwd"}}`:                                           "digest",
		`{"config":` + config + `,"layers":[{"digest":"sha256:12"}]}`:                                  "layer 0",
		`{"config":` + config + `,"layers":[{"digest":"` + one.String() + `","size":-1}]}`:             "size of -1",
		`{"config":` + config + `,"manifests":[]}`:                                                     "ambiguous",
		`{"config":` + config + `,"mediaType":"` + ocispec.MediaTypeImageIndex + `"}`:                  "media type",
		`{"schemaVersion":1,"fsLayers":[]}`:                                                            "format 1",
		`{"config":` + config + `,"annotations":{"a":"` + strings.Repeat("x", oci.MaxManifest) + `"}}`: "limit",
	} {
		if _, err := oci.ParseManifest([]byte(text)); err == nil || !strings.Contains(err.Error(), word) {
			t.Errorf("%.90s: %v; want %q", text, err, word)
		}
	}
}

func TestParseIndex(t *testing.T) {
	good := `{"schemaVersion":2,"manifests":[{"mediaType":"` + ocispec.MediaTypeImageManifest + `","digest":"` + one.String() +
		`","size":1,"platform":{"os":"wasip1","architecture":"wasm"}}]}`
	index, err := oci.ParseIndex([]byte(good))
	if err != nil || len(index.Manifests) != 1 || oci.FormatPlatform(*index.Manifests[0].Platform) != "wasip1/wasm" {
		t.Errorf("got %+v, %v", index, err)
	}
	for text, word := range map[string]string{
		`x`:                             "not valid",
		`{"manifests":[{"digest":""}]}`: "manifest 0",
		`{"manifests":[],"layers":[]}`:  "ambiguous",
		`{"manifests":[],"mediaType":"` + ocispec.MediaTypeImageManifest + `"}`: "media type",
		strings.Repeat(" ", oci.MaxManifest+1):                                  "limit",
	} {
		if _, err := oci.ParseIndex([]byte(text)); err == nil || !strings.Contains(err.Error(), word) {
			t.Errorf("%.90s: %v; want %q", text, err, word)
		}
	}
}

func TestParseConfig(t *testing.T) {
	text := []byte(`{"os":"linux","architecture":"arm","variant":"v7","rootfs":{"type":"layers","diff_ids":["` + one.String() + `"]}}`)
	config, err := oci.ParseConfig(ocispec.MediaTypeImageConfig, text)
	if err != nil || oci.FormatPlatform(config.Platform) != "linux/arm/v7" || config.ChainID() != one.String() {
		t.Errorf("got %+v, %v", config, err)
	}
	config, err = oci.ParseConfig(oci.MediaTypeWasmConfigV0, []byte(`{"os":"wasip1","architecture":"wasm","layerDigests":[]}`))
	if err != nil || oci.FormatPlatform(config.Platform) != "wasip1/wasm" || config.ChainID() != "" {
		t.Errorf("got %+v, %v", config, err)
	}
	// The configuration of another artifact may hold anything.
	config, err = oci.ParseConfig("application/vnd.unknown.config.v1+json", []byte(`"x"`))
	if err != nil || oci.FormatPlatform(config.Platform) != "" || config.ChainID() != "" {
		t.Errorf("got %+v, %v", config, err)
	}
	for text, word := range map[string]string{
		`x`:                                  "not valid",
		`{"rootfs":{"diff_ids":["../x"]}}`:   "diff_id 0",
		strings.Repeat(" ", oci.MaxConfig+1): "limit",
	} {
		if _, err := oci.ParseConfig(ocispec.MediaTypeImageConfig, []byte(text)); err == nil || !strings.Contains(err.Error(), word) {
			t.Errorf("%.90s: %v; want %q", text, err, word)
		}
	}
}

// A configuration in the CNCF's layout belongs to one uncompressed layer of Wasm, and to no other layer with
// the same bytes.
func TestIsOf(t *testing.T) {
	config, err := oci.ParseConfig(oci.MediaTypeWasmConfigV0, []byte(`{"layerDigests":["`+one.String()+`"]}`))
	if err != nil {
		t.Fatal(err)
	}
	layer := func(mediaType string, d digest.Digest) ocispec.Descriptor {
		return ocispec.Descriptor{MediaType: mediaType, Digest: d, Size: 8}
	}
	own := layer(oci.MediaTypeWasm, one)
	if !config.IsOf([]ocispec.Descriptor{own}) {
		t.Error("not of its own layer")
	}
	for name, layers := range map[string][]ocispec.Descriptor{
		"no layer":           nil,
		"another layer":      {layer(oci.MediaTypeWasm, two)},
		"two layers":         {own, own},
		"compressed":         {layer(oci.MediaTypeWasm+"+gzip", one)},
		"another media type": {layer(oci.MediaTypeWasmContent, one)},
		"files":              {layer(ocispec.MediaTypeImageLayer, one)},
	} {
		if config.IsOf(layers) {
			t.Errorf("%s: the configuration is taken for theirs", name)
		}
	}
}

// FuzzParse parses data that registries may send. No digest in accepted data leads out of the content store.
func FuzzParse(f *testing.F) {
	config := descriptor(ocispec.MediaTypeImageConfig, one)
	f.Add([]byte(`{"config":` + config + `,"layers":[` + descriptor(oci.MediaTypeWasm, two) + `]}`))
	f.Add([]byte(`{"manifests":[` + config + `]}`))
	f.Add([]byte(`{"os":"wasi","architecture":"wasm","rootfs":{"diff_ids":["` + one.String() + `"]}}`))
	f.Add([]byte("\x00asm\x01\x00\x00\x00"))
	f.Fuzz(func(t *testing.T, data []byte) {
		usable := func(d digest.Digest) {
			if strings.ContainsAny(d.Encoded()+d.Algorithm().String(), "/.\x00") || len(d.Encoded()) < 64 {
				t.Errorf("digest %q was accepted", d)
			}
		}
		if manifest, err := oci.ParseManifest(data); err == nil {
			usable(manifest.Config.Digest)
			for _, l := range manifest.Layers {
				usable(l.Digest)
			}
			found := oci.Found{Image: "image", Modules: oci.Modules(manifest)}
			for _, m := range found.Modules {
				if chosen, err := found.Select(entrypoint.Parse(m.Name)); err == nil && len(found.Modules) > 1 && chosen.Name == "" {
					t.Errorf("%q selects a module without a name", m.Name)
				}
				if content, err := m.CheckHead(data); err == nil && content == oci.Empty {
					t.Errorf("nothing passes for %s", m.MediaType)
				}
			}
			if _, err := oci.ParseIndex(data); err == nil && len(manifest.Layers) > 0 {
				t.Error("a manifest is an index, too")
			}
		}
		if index, err := oci.ParseIndex(data); err == nil {
			for _, m := range index.Manifests {
				usable(m.Digest)
			}
		}
		if config, err := oci.ParseConfig(ocispec.MediaTypeImageConfig, data); err == nil {
			for _, d := range config.RootFS.DiffIDs {
				usable(d)
			}
			oci.FormatPlatform(config.Platform)
			_ = config.ChainID()
		}
	})
}

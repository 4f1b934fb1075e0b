package oci_test

import (
	"strings"
	"testing"

	"github.com/wasmshim/containerd-shim-wasm/oci"
)

func TestContentOf(t *testing.T) {
	tar := strings.Repeat("\x00", 257) + "ustar\x0000"
	for head, want := range map[string]oci.Content{
		"":                                   oci.Empty,
		"\x00asm\x01\x00\x00\x00\x01":        oci.WasmModule,
		"\x00asm\x0d\x00\x01\x00\x00":        oci.WasmComponent,
		"\x00asm":                            oci.Unknown,
		"\x00asm\x02\x00\x00\x00":            oci.Unknown,
		"\x7fELF\x02\x01\x01\xc8":            oci.Precompiled,
		"\x7fELF\x02\x01\x01\x00":            oci.Native,
		"\x7fELF":                            oci.Native,
		"\x1f\x8b\x08":                       oci.Gzip,
		"\x28\xb5\x2f\xfd":                   oci.Zstd,
		"PK\x03\x04":                         oci.Zip,
		tar:                                  oci.Tar,
		"\n  (module (func (export \"run\")": oci.WasmText,
		"hello":                              oci.Unknown,
	} {
		if got := oci.ContentOf([]byte(head)); got != want {
			t.Errorf("%.20q: got %s, want %s", head, got, want)
		}
	}
}

func TestCheckHead(t *testing.T) {
	heads := map[oci.Content]string{
		oci.WasmModule: "\x00asm\x01\x00\x00\x00", oci.WasmComponent: "\x00asm\x0d\x00\x01\x00", oci.Precompiled: "\x7fELF\x02\x01\x01\xc8",
		oci.Gzip: "\x1f\x8b", oci.Zstd: "\x28\xb5\x2f\xfd", oci.Zip: "PK\x03\x04", oci.Native: "\x7fELF\x02\x01\x01\x00", oci.Empty: "",
	}
	fits := map[string][]oci.Content{
		"": {oci.WasmModule, oci.WasmComponent, oci.Precompiled}, "gzip": {oci.Gzip}, "zstd": {oci.Zstd}, "zip": {oci.Zip},
	}
	for compression, allowed := range fits {
		for content, head := range heads {
			ok := false
			for _, a := range allowed {
				ok = ok || a == content
			}
			m := oci.Module{Name: "app.wasm", MediaType: "the/type", Compression: compression}
			got, err := m.CheckHead([]byte(head))
			if got != content || (err == nil) != ok {
				t.Errorf("compression %q, content %s: got %s, %v", compression, content, got, err)
			}
			if err == nil {
				continue
			}
			for _, word := range []string{"app.wasm", "the/type", string(content)} {
				if !strings.Contains(err.Error(), word) {
					t.Errorf("%q has no %q", err, word)
				}
			}
		}
	}
}

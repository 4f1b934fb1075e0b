package oci_test

import (
	"encoding/json"
	"errors"
	"reflect"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/wasmshim/containerd-shim-wasm/oci"
)

func module(name string) oci.Module {
	return oci.Module{Name: name, Digest: digest.FromString(name), MediaType: oci.MediaTypeWasm}
}

func TestSelect(t *testing.T) {
	one := []oci.Module{module("app.wasm")}
	two := []oci.Module{module("bin/first.wasm"), module("second.wasm")}
	for _, test := range []struct {
		modules []oci.Module
		entry   string
		want    string
	}{
		{one, "", "app.wasm"},
		{one, "/no/such/file", "app.wasm"},
		{one, "app.wasm#run", "app.wasm"},
		{two, "/second.wasm", "second.wasm"},
		{two, "./second.wasm#run", "second.wasm"},
		{two, "second.wasm", "second.wasm"},
		{two, "/bin/first.wasm", "bin/first.wasm"},
		{two, "first.wasm", "bin/first.wasm"},
		{two, "/opt/first.wasm", "bin/first.wasm"},
		// The whole name counts for more than its end.
		{[]oci.Module{module("a/x.wasm"), module("x.wasm")}, "x.wasm", "x.wasm"},
		// The same layer twice is one.
		{[]oci.Module{module("x.wasm"), module("x.wasm")}, "x.wasm", "x.wasm"},
	} {
		got, err := oci.Found{Image: "i", Modules: test.modules}.Select(test.entry)
		if err != nil || got.Name != test.want {
			t.Errorf("%q of %v: %v, %v; want %s", test.entry, test.modules, got, err, test.want)
		}
	}
}

func TestSelectRefuses(t *testing.T) {
	two := []oci.Module{module("first.wasm"), module("second.wasm")}
	same := []oci.Module{module("a/x.wasm"), module("b/x.wasm")}
	untitled := module("")
	for _, test := range []struct {
		modules []oci.Module
		entry   string
		words   []string
	}{
		{two, "", []string{"image i", "no entry point", "first.wasm, second.wasm"}},
		{two, "#run", []string{"no entry point", "first.wasm, second.wasm"}},
		{two, "third.wasm", []string{`"third.wasm"`, "first.wasm, second.wasm"}},
		{same, "x.wasm", []string{"2 Wasm layers", `"x.wasm"`}},
		{[]oci.Module{untitled, module("y.wasm")}, "/", []string{untitled.Digest.String() + " (without a title)", "y.wasm"}},
	} {
		got, err := oci.Found{Image: "i", Modules: test.modules}.Select(test.entry)
		if err == nil {
			t.Errorf("%q of %v: got %v", test.entry, test.modules, got)
			continue
		}
		for _, word := range test.words {
			if !strings.Contains(err.Error(), word) {
				t.Errorf("%q of %v: %q has no %q", test.entry, test.modules, err, word)
			}
		}
	}
	if _, err := (oci.Found{Image: "i"}).Select("x"); !errors.Is(err, oci.ErrNoModule) {
		t.Errorf("an image without Wasm layers: %v", err)
	}
}

// The daemon reads what wasm-images prints, in another version perhaps: the names count.
func TestFoundJSON(t *testing.T) {
	d := digest.FromString("x")
	want := oci.Found{Image: "i", Manifest: "m", Platform: "wasi/wasm", Modules: []oci.Module{{
		Name: "n", Digest: d, Size: 3, MediaType: "t", Compression: "gzip", Path: "/p",
	}}}
	text := `{"image":"i","manifest":"m","platform":"wasi/wasm","modules":[{"name":"n","digest":"` + d.String() +
		`","size":3,"mediaType":"t","compression":"gzip","path":"/p"}]}`
	if data, err := json.Marshal(want); err != nil || string(data) != text {
		t.Errorf("got %s, %v", data, err)
	}
	var got oci.Found
	if err := json.Unmarshal([]byte(text), &got); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, %v", got, err)
	}
}

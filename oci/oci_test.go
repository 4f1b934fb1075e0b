package oci_test

import (
	"encoding/json"
	"errors"
	"reflect"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/wasmshim/containerd-shim-wasm/entrypoint"
	"github.com/wasmshim/containerd-shim-wasm/oci"
)

func module(name string) oci.Module {
	return oci.Module{Name: name, Digest: digest.FromString(name), MediaType: oci.MediaTypeWasm}
}

func TestSelect(t *testing.T) {
	one := []oci.Module{module("app.wasm")}
	two := []oci.Module{module("bin/first.wasm"), module("second.wasm")}
	untitled := []oci.Module{module("")}
	for _, test := range []struct {
		modules []oci.Module
		own     string // the image's entry point
		command string
		want    string
	}{
		{one, "", "app.wasm", "app.wasm"},
		{one, "", "app.wasm#run", "app.wasm"},
		{one, "", "/opt/app.wasm", "app.wasm"},
		{one, "", "", "app.wasm"},
		// Spin's and runwasi's manifests.
		{one, "", "/", "app.wasm"},
		{one, "/", "/", "app.wasm"},
		{two, "/second.wasm", "/", "second.wasm"},
		// The image's own entry point selects its only module, whatever it is.
		{one, "bogus", "bogus", "app.wasm"},
		{one, "/bin/tool", "tool", "app.wasm"},
		{one, "/bin/tool", "/app.wasm", "app.wasm"},
		// Any name of a .wasm file selects a module without a title.
		{untitled, "", "/any.wasm", ""},
		{untitled, "", "any.wasm#run", ""},
		{untitled, "", "/", ""},
		{untitled, "app", "/app", ""},
		{two, "", "/second.wasm", "second.wasm"},
		{two, "", "./second.wasm#run", "second.wasm"},
		{two, "", "second.wasm", "second.wasm"},
		{two, "", "/bin/first.wasm", "bin/first.wasm"},
		{two, "", "first.wasm", "bin/first.wasm"},
		{two, "", "/opt/first.wasm", "bin/first.wasm"},
		// A match of the whole name takes precedence over a match of its base.
		{[]oci.Module{module("a/x.wasm"), module("x.wasm")}, "", "x.wasm", "x.wasm"},
		// The same layer twice counts as one.
		{[]oci.Module{module("x.wasm"), module("x.wasm")}, "", "x.wasm", "x.wasm"},
	} {
		got, err := oci.Found{Image: "i", Entry: test.own, Modules: test.modules}.Select(entrypoint.Parse(test.command))
		if err != nil || got.Name != test.want {
			t.Errorf("%q of %v with %q: %v, %v; want %s", test.command, test.modules, test.own, got, err, test.want)
		}
	}
}

// A command that names no module is refused, and the error says what to write.
func TestSelectRefuses(t *testing.T) {
	one := []oci.Module{module("app.wasm")}
	two := []oci.Module{module("first.wasm"), module("second.wasm")}
	same := []oci.Module{module("a/x.wasm"), module("b/x.wasm")}
	untitled := module("")
	for _, test := range []struct {
		modules []oci.Module
		own     string
		command string
		words   []string
	}{
		{one, "", "sh", []string{"image i", `"sh"`, "its name is app.wasm"}},
		{one, "", "/typo.wasm", []string{`"/typo.wasm"`, "its name is app.wasm"}},
		{one, "/tool", "/bin/true", []string{`"/bin/true"`, "its name is /tool"}},
		{one, "/tool", "/typo.wasm", []string{"its name is /tool"}},
		{[]oci.Module{untitled}, "/tool", "/typo.wasm", []string{"its name is /tool"}},
		{[]oci.Module{untitled}, "", "cat", []string{`"cat"`, "any that ends in .wasm"}},
		{two, "", "", []string{"image i", "no entry point", "first.wasm, second.wasm"}},
		{two, "", "#run", []string{`"#run"`, "first.wasm, second.wasm"}},
		{two, "", "/", []string{"no entry point", "first.wasm, second.wasm"}},
		{two, "", "third.wasm", []string{`"third.wasm"`, "first.wasm, second.wasm"}},
		{two, "third", "third", []string{`"third"`, "first.wasm, second.wasm"}},
		{same, "", "x.wasm", []string{"2 Wasm layers", `"x.wasm"`}},
		{[]oci.Module{untitled, module("y.wasm")}, "", "/", []string{untitled.Digest.String() + " (without a title)", "y.wasm"}},
	} {
		got, err := oci.Found{Image: "i", Entry: test.own, Modules: test.modules}.Select(entrypoint.Parse(test.command))
		if err == nil {
			t.Errorf("%q of %v with %q: got %v", test.command, test.modules, test.own, got)
			continue
		}
		for _, word := range test.words {
			if !strings.Contains(err.Error(), word) {
				t.Errorf("%q of %v with %q: %q has no %q", test.command, test.modules, test.own, err, word)
			}
		}
	}
	if _, err := (oci.Found{Image: "i"}).Select(entrypoint.Parse("x")); !errors.Is(err, oci.ErrNoModule) {
		t.Errorf("an image without Wasm layers: %v", err)
	}
}

// The JSON names are fixed: the daemon reads the output of wasm-client, which may be of another version.
func TestFoundJSON(t *testing.T) {
	d := digest.FromString("x")
	want := oci.Found{Image: "i", Target: "t", Manifest: "m", Platform: "wasi/wasm", Entry: "e", Modules: []oci.Module{{
		Name: "n", Digest: d, Size: 3, MediaType: "t", Compression: "gzip", Path: "/p",
	}}}
	text := `{"image":"i","target":"t","manifest":"m","platform":"wasi/wasm","entry":"e","modules":[{"name":"n","digest":"` + d.String() +
		`","size":3,"mediaType":"t","compression":"gzip","path":"/p"}]}`
	if data, err := json.Marshal(want); err != nil || string(data) != text {
		t.Errorf("got %s, %v", data, err)
	}
	var got oci.Found
	if err := json.Unmarshal([]byte(text), &got); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, %v", got, err)
	}
}

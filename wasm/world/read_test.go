package world_test

import (
	"bytes"
	"io"
	"reflect"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/wasmshim/containerd-shim-wasm/internal/testimage"
	"github.com/wasmshim/containerd-shim-wasm/wasm/world"
)

const header = "\x00asm\x0d\x00\x01\x00"

// section returns a section of at most 127 bytes.
func section(id byte, content string) string {
	return string([]byte{id, byte(len(content))}) + content
}

func TestReadInterfaces(t *testing.T) {
	imports, exports := []string{"wasi:cli/environment@0.2.3", "wasi:io/streams@0.2.3"}, []string{"wasi:cli/run@0.2.3"}
	// Sections may appear more than once, with others in between.
	custom := "\x00\x05\x04test"
	whole := string(testimage.Component(imports, exports)) + custom + section(10, "\x01\x00\x05later\x05\x00")
	got, err := world.Read(strings.NewReader(whole))
	if err != nil {
		t.Fatal(err)
	}
	want := world.World{Imports: instances(append(imports, "later")...), Exports: instances(exports...)}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if names := world.Names(got.Exports); !slices.Equal(names, exports) {
		t.Errorf("the exports' names are %q", names)
	}
}

// Read reads every form of imports and exports in Binary.md.
func TestReadEveryForm(t *testing.T) {
	text := header +
		section(10, "\x07"+
			"\x00\x01a\x00\x11\x00"+ // core module
			"\x01\x01b\x01\x80\x01"+ // function, of type 128
			"\x00\x01c\x02\x00\x00"+ // value, equal to another
			"\x00\x01d\x02\x01\x73"+ // value, a string
			"\x00\x01e\x03\x00\x02"+ // type, equal to another
			"\x00\x01f\x03\x01"+ // resource
			"\x02\x01g\x02\x00\x03a:b\x02\x01x\x04\x07") + // component, with attributes
		section(11, "\x03"+
			"\x00\x01h\x00\x11\x00\x00"+ // core module
			"\x01\x01i\x01\x02\x01\x01\x03"+ // function, with a type
			"\x00\x02\xc3\xbc\x05\x00\x00") // instance
	got, err := world.Read(strings.NewReader(text))
	want := world.World{
		Imports: []world.Item{{"a", world.CoreModule}, {"b", world.Function}, {"c", world.Value}, {"d", world.Value},
			{"e", world.Type}, {"f", world.Type}, {"g", world.Component}},
		Exports: []world.Item{{"h", world.CoreModule}, {"i", world.Function}, {"ü", world.Instance}},
	}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, %v, want %+v", got, err, want)
	}
}

func TestReadNothing(t *testing.T) {
	if got, err := world.Read(strings.NewReader(header)); err != nil || len(got.Imports)+len(got.Exports) > 0 {
		t.Errorf("of the smallest component it reads %+v, %v", got, err)
	}
}

func TestReadRefuses(t *testing.T) {
	for name, c := range map[string]struct{ text, want string }{
		"empty":             {"", "ends too early"},
		"module":            {"\x00asm\x01\x00\x00\x00", "no component of a known version"},
		"other version":     {"\x00asm\x0e\x00\x01\x00", "no component of a known version"},
		"half a header":     {header[:6], "ends too early"},
		"no size":           {header + "\x0a", "ends too early"},
		"short section":     {header + "\x0a\x05\x00", "ends too early"},
		"short module":      {header + "\x01\x05\x00", "ends too early"},
		"unknown section":   {header + section(13, ""), "unknown kind 13"},
		"long size":         {header + "\x01\xff\xff\xff\xff\x10", "more than 32 bits"},
		"endless size":      {header + "\x01\x80\x80\x80\x80\x80\x00", "more than 32 bits"},
		"large section":     {header + "\x0a\x81\x80\x40", "more than 1048576 bytes"},
		"large sections":    {header + "\x0a\x80\x80\x40" + "\x00" + strings.Repeat("\x00", 1<<20-1), "bytes are left over"},
		"no count":          {header + section(10, ""), "import 0"},
		"no import":         {header + section(10, "\x02\x00\x01a\x05\x00"), "import 1"},
		"long name":         {header + section(10, "\x01\x00\x7fa"), "import 0"},
		"very long name":    {header + section(10, "\x01\x00\xff\xff\xff\xff\x0fa"), "import 0"},
		"no UTF-8":          {header + section(10, "\x01\x00\x01\xff\x05\x00"), "not UTF-8"},
		"unknown name":      {header + section(10, "\x01\x03\x01a\x05\x00"), "0x3 is not of the forms 0 to 2"},
		"unknown attribute": {header + section(10, "\x01\x02\x01a\x01\x03\x00\x05\x00"), "0x3 is not of the forms 0 to 2"},
		"no attribute":      {header + section(10, "\x01\x02\x01a\xff\x7f"), "import 0"},
		"unknown type":      {header + section(10, "\x01\x00\x01a\x06\x00"), "0x6 is not of the forms 0 to 5"},
		"core function":     {header + section(10, "\x01\x00\x01a\x00\x00\x00"), "not the sort of a core module"},
		"unknown bound":     {header + section(10, "\x01\x00\x01a\x03\x02"), "0x2 is not of the forms 0 to 1"},
		"left over":         {header + section(10, "\x01\x00\x01a\x05\x00\x00"), "left over"},
		"export":            {header + section(11, "\x01\x00\x01a\x05\x00"), "export 0"},
		"export's type":     {header + section(11, "\x01\x00\x01a\x05\x00\x02"), "0x2 is not of the forms 0 to 1"},
		"second section":    {header + section(11, "\x01\x00\x01a\x05\x00\x00") + section(11, "\x01\x00\x01a\x05"), "export 1"},
	} {
		got, err := world.Read(strings.NewReader(c.text))
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q", name, err, c.want)
		}
		if len(got.Imports)+len(got.Exports) > 0 {
			t.Errorf("%s: beside the error it returns %+v", name, got)
		}
	}
}

// Read does not keep the code of a component, which is most of it.
func TestReadSkipsWhatItDoesNotNeed(t *testing.T) {
	const size = 1 << 30
	large := io.MultiReader(
		strings.NewReader(header+"\x01\x80\x80\x80\x80\x04"), io.LimitReader(zeros{}, size),
		bytes.NewReader(testimage.Component(nil, []string{"a:b/c"})[len(header):]))
	if got, err := world.Read(large); err != nil || !got.Has("a:b/c", world.Instance) {
		t.Errorf("got %+v, %v", got, err)
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { return len(p), nil }

func FuzzRead(f *testing.F) {
	f.Add(testimage.Component([]string{"wasi:cli/environment@0.2.3"}, []string{"wasi:cli/run@0.2.3"}))
	f.Add([]byte(header + section(10, "\x02\x00\x01a\x00\x11\x00\x02\x01g\x02\x00\x03a:b\x02\x01x\x03\x01")))
	f.Add([]byte(header + section(11, "\x01\x01\x01i\x01\x02\x01\x01\x03")))
	f.Fuzz(func(t *testing.T, data []byte) {
		w, err := world.Read(bytes.NewReader(data))
		if err != nil {
			return
		}
		held := 0
		for _, item := range slices.Concat(w.Imports, w.Exports) {
			if held += len(item.Name); !utf8.ValidString(item.Name) || item.Kind == "" {
				t.Errorf("it read %+v", item)
			}
		}
		if held > len(data) {
			t.Errorf("names of %d bytes from %d", held, len(data))
		}
		// A section appended to a complete component does not change the earlier imports and exports.
		again, err := world.Read(io.MultiReader(bytes.NewReader(data), bytes.NewReader(testimage.Component(nil, []string{"z:z/z"})[len(header):])))
		if err == nil && (!slices.Equal(again.Imports, w.Imports) || !slices.Equal(again.Exports[:len(w.Exports)], w.Exports) || !again.Has("z:z/z", world.Instance)) {
			t.Errorf("with one more export it read %+v, without %+v", again, w)
		}
	})
}

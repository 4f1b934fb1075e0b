package ask_test

import (
	"bytes"
	"flag"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/wasmshim/containerd-shim-wasm/internal/endpoint"
	"github.com/wasmshim/containerd-shim-wasm/oci"
	"github.com/wasmshim/containerd-shim-wasm/oci/ask"
)

// Flags parses the line that Line makes of a question, and yields an equal question.
func TestLine(t *testing.T) {
	c := endpoint.Containerd{Address: "/run/c.sock", Namespace: "k8s.io"}
	for _, question := range []ask.Question{
		&ask.Find{Container: "-id"}, &ask.Find{Image: "i"}, &ask.Watch{}, &ask.View{Image: "i", Snapshotter: "native"},
		&ask.Keep{Cache: "/c", CacheSize: 1, Engine: "e", Module: "m", Key: "k", Container: "id"},
		&ask.Keep{Image: "i", Target: "sha256:1"},
	} {
		line := ask.Line(c, question)
		if line[0] != question.Verb() {
			t.Errorf("%q does not begin with %s", line, question.Verb())
		}
		read := reflect.New(reflect.TypeOf(question).Elem()).Interface().(ask.Question)
		var of endpoint.Containerd
		set := flag.NewFlagSet("", flag.ContinueOnError)
		of.Flags(set)
		read.Flags(set)
		if err := set.Parse(line[1:]); err != nil || set.NArg() > 0 {
			t.Errorf("%q: %v, %q is left", line, err, set.Args())
		}
		if !reflect.DeepEqual(read, question) || of != c {
			t.Errorf("%q: read %+v of %+v, want %+v", line, read, of, question)
		}
	}
}

func TestBegin(t *testing.T) {
	var told bytes.Buffer
	if err := ask.Begin(&told); err != nil {
		t.Fatal(err)
	}
	for input, want := range map[string]struct {
		begin bool
		err   string
	}{
		told.String(): {true, ""}, "": {false, ""}, "beg": {false, "the daemon says"}, "started\n": {false, "the daemon says"},
	} {
		begin, err := ask.AwaitBegin(strings.NewReader(input))
		if begin != want.begin || (err == nil) != (want.err == "") || err != nil && !strings.Contains(err.Error(), want.err) {
			t.Errorf("%q: %v, %v; want %+v", input, begin, err, want)
		}
	}
}

func TestAnswers(t *testing.T) {
	var b bytes.Buffer
	found := oci.Found{Image: "i", Modules: []oci.Module{{Name: "app.wasm", Path: "/blob"}}}
	view := oci.View{
		Mounts: []oci.Mount{{Type: "overlay", Source: "overlay", Target: "/t", Options: []string{"ro"}}},
		Args:   []string{"/app.wasm"}, Env: []string{"A=1"}, Cwd: "/",
	}
	if err := ask.WriteFound(&b, found); err != nil {
		t.Fatal(err)
	}
	if got, err := ask.ReadFound(&b); err != nil || !reflect.DeepEqual(got, found) {
		t.Errorf("got %+v, %v", got, err)
	}
	b.Reset()
	if err := ask.WriteView(&b, view); err != nil {
		t.Fatal(err)
	}
	if got, err := ask.ReadView(&b); err != nil || !reflect.DeepEqual(got, view) {
		t.Errorf("got %+v, %v", got, err)
	}
	b.Reset()
	for _, name := range []string{"a", "b:c"} {
		if err := ask.WriteImage(&b, name); err != nil {
			t.Fatal(err)
		}
	}
	if got := slices.Collect(ask.ReadImages(&b)); !slices.Equal(got, []string{"a", "b:c"}) {
		t.Errorf("got %q", got)
	}
}

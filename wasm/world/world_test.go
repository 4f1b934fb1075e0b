package world_test

import (
	"slices"
	"testing"

	"github.com/wasmshim/containerd-shim-wasm/wasm/world"
)

// instances returns items of the kind Instance.
func instances(names ...string) []world.Item {
	var items []world.Item
	for _, name := range names {
		items = append(items, world.Item{Name: name, Kind: world.Instance})
	}
	return items
}

func TestMissing(t *testing.T) {
	w := world.World{Imports: append(instances(
		"wasi:cli/environment@0.2.0", "wasi:sockets/tcp@0.2.12", "wasi:io/streams@0.2.6",
		"wasi:http/types@0.2.10", "wasi:http/outgoing-handler@0.2.10",
		"wasi:http/incoming-handler@0.2.0", "wasi:http/types@0.3.0", "wasi:keyvalue/store@0.2.0", "wasi:cli/run@0.2.0", "wasi:clocks/timezone@0.2.1", "wasi:cli/nonsense@0.2.0",
		"wasi:io/streams@0.3.0", "wasi:io/streams@0.2.", "wasi:io/streams@0.2.0-rc-2023-11-10", "wasi:io/streams",
		"own:wasi/cli@0.2.0", "environment", "",
	), world.Item{Name: "wasi:io/poll@0.2.0", Kind: world.Function}, world.Item{Name: "greet", Kind: world.Function})}
	want := []string{
		"wasi:http/incoming-handler@0.2.0", "wasi:http/types@0.3.0", "wasi:keyvalue/store@0.2.0", "wasi:cli/run@0.2.0", "wasi:clocks/timezone@0.2.1", "wasi:cli/nonsense@0.2.0",
		"wasi:io/streams@0.3.0", "wasi:io/streams@0.2.", "wasi:io/streams@0.2.0-rc-2023-11-10", "wasi:io/streams",
		"own:wasi/cli@0.2.0", "environment", "",
		"wasi:io/poll@0.2.0", "greet",
	}
	if got := w.Missing(); !slices.Equal(got, want) {
		t.Errorf("missing are %q, want %q", got, want)
	}
	if got := (world.World{}).Missing(); len(got) > 0 {
		t.Errorf("a component that imports nothing misses %q", got)
	}
}

func TestCommand(t *testing.T) {
	for _, c := range []struct {
		name            string
		w               world.World
		command, target string
	}{
		{"command", world.World{Imports: instances("wasi:io/poll@0.2.1"), Exports: instances("own:app/api", "wasi:cli/run@0.2.3")}, "wasi:cli/run@0.2.3", "wasi:cli/command@0.2.3"},
		{"of another world", world.World{Imports: instances("wasi:http/types@0.2.0"), Exports: instances("wasi:cli/run@0.2.3")}, "wasi:cli/run@0.2.3", ""},
		{"of another version", world.World{Exports: instances("wasi:cli/run@0.3.0", "wasi:cli/run", "wasi:cli/run@0.2")}, "", ""},
		{"of another name", world.World{Exports: instances("own:cli/run@0.2.0", "wasi:cli/runner@0.2.0")}, "", ""},
		{"no interface", world.World{Exports: []world.Item{{Name: "wasi:cli/run@0.2.0", Kind: world.Component}}}, "", ""},
		{"nothing", world.World{}, "", ""},
	} {
		if got := c.w.Command(); got != c.command {
			t.Errorf("%s: the command is %q, want %q", c.name, got, c.command)
		}
		if got := c.w.Target(); got != c.target {
			t.Errorf("%s: the target is %q, want %q", c.name, got, c.target)
		}
	}
}

func TestHas(t *testing.T) {
	w := world.World{Imports: instances("a"), Exports: []world.Item{{Name: "b", Kind: world.Function}}}
	if !w.Has("b", world.Function) || w.Has("b", world.Instance) || w.Has("a", world.Instance) {
		t.Errorf("it is wrong about %+v", w)
	}
}

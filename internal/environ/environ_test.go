package environ_test

import (
	"slices"
	"testing"

	"github.com/wasmshim/containerd-shim-wasm/internal/environ"
)

func TestLookup(t *testing.T) {
	env := []string{"A=1", "AB=2", "A=3=4", "EMPTY=", "none", "B=1", "B="}
	for name, want := range map[string]struct {
		value string
		set   bool
	}{
		"A": {"3=4", true}, "AB": {"2", true}, "EMPTY": {"", true}, "B": {"", true}, "none": {}, "C": {},
	} {
		if value, set := environ.Lookup(env, name); value != want.value || set != want.set {
			t.Errorf("%s: got %q, %v; want %q, %v", name, value, set, want.value, want.set)
		}
		if value := environ.Get(env, name); value != want.value {
			t.Errorf("%s: got %q, want %q", name, value, want.value)
		}
	}
}

func TestUnique(t *testing.T) {
	got := environ.Unique([]string{"A=1", "B=2", "A=3", "C", "B=", "D=4"})
	if want := []string{"A=3", "C", "B=", "D=4"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if got := environ.Unique(nil); got != nil {
		t.Errorf("of none: %q", got)
	}
}

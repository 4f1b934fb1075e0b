package cache

import (
	"context"
	"os"
	"testing"

	"github.com/wasmshim/containerd-shim-wasm/worker/control"
)

// BenchmarkLookup measures the cost for a start of a module that is compiled already.
func BenchmarkLookup(b *testing.B) {
	c, err := Open(b.TempDir(), engine)
	if err != nil {
		b.Fatal(err)
	}
	digest := digestOf("module")
	made := &compiler{code: "code"}
	load := func() {
		entry, err := c.Load(b.Context(), digest, func(ctx context.Context, out *os.File) (*control.Module, error) { return made.compile(ctx, out) })
		if err != nil {
			b.Fatal(err)
		}
		if err := entry.Code.Close(); err != nil {
			b.Fatal(err)
		}
	}
	load()
	for b.Loop() {
		load()
	}
}

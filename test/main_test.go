// Package test runs containers through real containerds, as an operator does, and looks at what they
// and the machine show. It holds no code that is shipped.
package test

import (
	"testing"

	"github.com/wasmshim/containerd-shim-wasm/internal/testnode"
)

// runtime is the name by which containerd finds our shim.
const runtime = "io.containerd.wasm.v1"

var nodes testnode.Pool

func TestMain(m *testing.M) { nodes.Main(m) }

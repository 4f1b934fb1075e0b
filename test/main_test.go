// Package test runs containers through real containerds, as an operator does, and checks what they do and
// what changes on the machine. It holds no code that is shipped.
package test

import (
	"testing"

	"github.com/wasmshim/containerd-shim-wasm/internal/testnode"
)

// runtime is the name by which containerd finds our shim.
const runtime = "io.containerd.wasm.v1"

// podNodes have CRI, a network for pods, and NRI, which containerd enables by default from 2.0 on.
var (
	nodes    testnode.Pool
	podNodes = testnode.Pool{Options: testnode.Options{CRI: true, NRI: true}}
)

func TestMain(m *testing.M) { testnode.Main(m, &nodes, &podNodes) }

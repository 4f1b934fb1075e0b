// Command wasm-node-installer is what the DaemonSet in deploy/node-installer runs on each
// node. It is a program of its own, beside the shim in the same image, because the
// shim is started twice for each pod: what speaks to API servers would make each of
// those starts slower.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/wasmshim/containerd-shim-wasm/install/incluster"
	"github.com/wasmshim/containerd-shim-wasm/internal/hide"
)

func main() {
	if err := hide.Process(); err != nil {
		fmt.Fprintln(os.Stderr, "wasm-node-installer:", err)
		os.Exit(1)
	}
	// A second signal changes nothing: a removal that has begun is finished.
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	code := incluster.Command(ctx, os.Args[1:], os.Stderr)
	stop()
	os.Exit(code)
}

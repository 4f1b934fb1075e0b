package main

import (
	"context"
	"os"

	"github.com/wasmshim/containerd-shim-wasm/artifact/spans"
	"github.com/wasmshim/containerd-shim-wasm/oci/ask"
)

// traceArtifacts is the shim's own verb. Of containerd it needs nothing.
func traceArtifacts(ctx context.Context, args []string, stdio stdio) error {
	set := newFlags(ask.TraceVerb, "< JSON", stdio)
	containerdFlags(set)
	if err := parse(set, args, 0, 0); err != nil {
		return err
	}
	of, err := ask.ReadTraced(stdio.in)
	if err != nil {
		return err
	}
	return spans.Send(ctx, of, os.Getenv)
}

// driver does what wasm-argoexec does, without the shim that starts it.
package main

import (
	"context"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/wasmshim/containerd-shim-wasm/argo/executor"
	"github.com/wasmshim/containerd-shim-wasm/argo/executor/step"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	pod := step.Pod{Release: "v4.0.2", Getenv: os.LookupEnv, Log: slog.New(slog.NewTextHandler(os.Stderr, nil))}
	if executor.Verb(os.Args) == "init" {
		os.Exit(step.Init(ctx, pod))
	}
	os.Exit(step.Wait(ctx, pod))
}

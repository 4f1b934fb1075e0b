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
	pod := step.Pod{Release: "v4.0.2", Lazy: os.Getenv("LAZY") != "", Getenv: os.LookupEnv, Log: slog.New(slog.NewTextHandler(os.Stderr, nil))}
	if executor.Verb(os.Args) == "init" {
		// The shim has this done later, and only for native containers. Here the files are compared with argoexec's.
		if err := step.Stage(pod); err != nil {
			pod.Log.Error("copy argoexec", "error", err)
		}
		os.Exit(step.Init(ctx, pod))
	}
	os.Exit(step.Wait(ctx, pod))
}

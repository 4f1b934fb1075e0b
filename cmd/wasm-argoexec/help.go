package main

import (
	"context"
	"runtime"

	"github.com/wasmshim/containerd-shim-wasm/argo/executor"
	"github.com/wasmshim/containerd-shim-wasm/argo/executor/step"
	"github.com/wasmshim/containerd-shim-wasm/artifact/progress"
	"github.com/wasmshim/containerd-shim-wasm/worker/control"
)

// helpers are the commands that the shim runs in the wait container when another container of the pod comes that needs
// what init has left undone. They report the result to the shim.
var helpers = map[string]func(context.Context, control.Worker, step.Pod) int{
	executor.StageVerb: func(_ context.Context, shim control.Worker, pod step.Pod) int { return report(shim, step.Stage(pod)) },
	executor.FetchVerb: func(ctx context.Context, shim control.Worker, pod step.Pod) int {
		return report(shim, step.Fetch(ctx, pod))
	},
	executor.ServeVerb: serve,
}

func report(shim control.Worker, failed error) int {
	var r control.Report
	if failed != nil {
		r.Error = failed.Error()
	}
	if err := shim.Report(r); err != nil || failed != nil {
		return 1
	}
	return 0
}

// serveThreads is how many threads serve artifacts: several ranges come at a time, and each is decrypted.
const serveThreads = 4

// serve serves the artifacts by the descriptors that the shim has given to this process, until the main container ends.
func serve(ctx context.Context, shim control.Worker, pod step.Pod) int {
	runtime.GOMAXPROCS(min(serveThreads, runtime.NumCPU()))
	artifacts, err := step.FindArtifacts(ctx, pod)
	if err != nil {
		return report(shim, err)
	}
	if err := shim.Report(control.Report{Artifacts: artifacts.Kinds()}); err != nil {
		return 1
	}
	if err := shim.AwaitStart(); err != nil { // the shim mounts them
		return 1
	}
	n := len(artifacts.Kinds())
	files := control.Descriptors(n + 1)
	serving, err := artifacts.Serve(ctx, files[:n])
	if code := report(shim, err); code != 0 {
		return code
	}
	shim.Close()
	defer progress.Publish(files[n], artifacts.Progress)()
	serving.Wait()
	return 0
}

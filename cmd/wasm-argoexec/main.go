// Command wasm-argoexec does the work of Argo's executor in the init and wait containers of a workflow's pod. The
// shim starts it there in the place of argoexec. In other pods, it serves the artifacts that they ask for by annotation. It
// travels inside the shim's binary and is not for people.
package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"slices"
	"syscall"

	"github.com/wasmshim/containerd-shim-wasm/argo"
	"github.com/wasmshim/containerd-shim-wasm/argo/executor"
	"github.com/wasmshim/containerd-shim-wasm/argo/executor/step"
	"github.com/wasmshim/containerd-shim-wasm/internal/hide"
	"github.com/wasmshim/containerd-shim-wasm/worker/control"
)

func main() {
	// The token of the service account is nobody else's business in a shared pid namespace.
	if err := hide.Process(); err != nil {
		fail(err)
	}
	// Nothing here is worth a thread more or a heap of more than a few MB.
	runtime.GOMAXPROCS(1)
	debug.SetGCPercent(25)
	// The shim starts it in a folder outside of the container.
	if err := os.Chdir("/"); err != nil {
		fail(err)
	}
	if os.Getenv(control.RoleEnv) == control.RoleServe {
		os.Exit(serveRequested(control.Own()))
	}
	own, err := control.OwnExecutor()
	if err != nil {
		fail(err)
	}
	pod := step.Pod{Release: own.Release, Template: own.Template, Lazy: own.Lazy, Getenv: os.LookupEnv, Log: newLog(os.Args)}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	shim := control.Own()
	if err := shim.AwaitStart(); err != nil {
		fail(err)
	}
	if len(os.Args) > 1 {
		if help, ok := helpers[os.Args[1]]; ok {
			os.Exit(help(ctx, shim, pod))
		}
	}
	// It handles signals from here on, which the closed socket tells the shim.
	shim.Close()
	os.Exit(run(ctx, pod, os.Args))
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, "wasm-argoexec:", err)
	os.Exit(1)
}

func run(ctx context.Context, pod step.Pod, args []string) int {
	if kill, ok, err := argo.ParseKill(args); ok || err != nil {
		return send(kill, err)
	}
	switch executor.Verb(args) {
	case "init":
		return step.Init(ctx, pod)
	case "wait":
		return step.Wait(ctx, pod)
	}
	pod.Log.Error("run the command: it is none of init, wait and kill", "command", args)
	return 1
}

// newLog returns a log in the format that the command line asks for. Each line bears the mark by which Argo tells its
// own lines from a program's.
func newLog(args []string) *slog.Logger {
	var handler slog.Handler = slog.NewTextHandler(os.Stderr, nil)
	if slices.Contains(args, "json") || slices.Contains(args, "--log-format=json") {
		handler = slog.NewJSONHandler(os.Stderr, nil)
	}
	return slog.New(handler).With("argo", true)
}

// send sends the signal of argoexec kill.
func send(kill argo.Kill, err error) int {
	if err == nil {
		fmt.Println(kill)
		err = syscall.Kill(kill.PID, kill.Signal)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		_ = os.WriteFile("/dev/termination-log", []byte(err.Error()), 0o600) // as the real one
		return 64
	}
	return 0
}

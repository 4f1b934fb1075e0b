// Command wasm-argoexec stands in for Argo's argoexec in the init and wait containers of a pod. It is
// started with argoexec's command line, and executes the image's argoexec for what it does not know.
package main

import (
	"os"

	"github.com/wasmshim/containerd-shim-wasm/argo/executor"
)

func main() { os.Exit(executor.Main(os.Args, os.Environ())) }

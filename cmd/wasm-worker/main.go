// Command wasm-worker holds wasmtime. The shim starts it inside a sandbox; it
// travels inside the shim's binary and is not for people.
package main

import (
	"os"
	"runtime"

	"github.com/wasmshim/containerd-shim-wasm/worker"
)

func init() {
	// The guest runs on the main thread: its stack follows RLIMIT_STACK.
	runtime.LockOSThread()
}

func main() {
	os.Exit(worker.Main())
}

package main

import (
	"strings"

	"github.com/wasmshim/containerd-shim-wasm/shim"
)

// runCache becomes wasm-images for the verbs about the compile cache, which has to be
// told what this shim's own engine is. It returns only if that fails.
func runCache(args []string) error {
	if len(args) < 2 || strings.HasPrefix(args[1], "-") {
		return runImages(args)
	}
	content, digest, _, err := worker.open()
	if err != nil {
		return err
	}
	if err := content.Close(); err != nil {
		return err
	}
	return runImages(append([]string{args[0], args[1], "--engine", shim.EngineKey(digest)}, args[2:]...))
}

// Command guests builds every Wasm guest that tests run, for a machine that
// cannot build them itself.
package main

import (
	"fmt"
	"os"

	"github.com/wasmshim/containerd-shim-wasm/internal/testguest"
)

func main() {
	for _, name := range testguest.Names() {
		if _, err := testguest.File(name); err != nil {
			fmt.Fprintf(os.Stderr, "build guest %s: %v\n", name, err)
			os.Exit(1)
		}
	}
}

// Command examples builds the images of the example workflows in examples/argo and writes each as a
// tar, NAME.tar, into the folder that its argument names. It leaves out third-party images that the
// examples use: a cluster pulls those.
package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/wasmshim/containerd-shim-wasm/internal/examples"
	"github.com/wasmshim/containerd-shim-wasm/internal/testguest"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: examples FOLDER")
		os.Exit(2)
	}
	if err := write(context.Background(), os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, "examples:", err)
		os.Exit(1)
	}
}

func write(ctx context.Context, dir string) error {
	names, err := examples.Names()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for _, name := range names {
		opts, err := examples.Image(ctx, name)
		if err != nil {
			return err
		}
		tar := filepath.Join(dir, name+".tar")
		if err := testguest.WriteImage(tar, examples.Reference(name), opts); err != nil {
			return err
		}
		fmt.Printf("packed %s into %s\n", examples.Reference(name), tar)
	}
	return nil
}

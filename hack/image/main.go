// Command image packs files into an image without a builder, a daemon or root:
//
//	go run ./hack/image [flags] REFERENCE OUTPUT.tar PATH=FILE…
//
// The image has one layer with the files and no base. The same files give the same image.
package main

import (
	"flag"
	"fmt"
	"os"
	"strings"

	"github.com/wasmshim/containerd-shim-wasm/internal/testguest"
)

func main() {
	platform := flag.String("platform", "", "`OS/ARCH` (default: this machine's)")
	entrypoint := flag.String("entrypoint", "", "`PATH` of the program in the image")
	flag.Parse()
	if err := pack(*platform, *entrypoint, flag.Args()); err != nil {
		fmt.Fprintln(os.Stderr, "image:", err)
		os.Exit(1)
	}
}

func pack(platform, entrypoint string, args []string) error {
	if len(args) < 3 {
		return fmt.Errorf("give a reference, an output and PATH=FILE at least, got %q", args)
	}
	opts := testguest.ImageOpts{Platform: platform, Files: map[string]string{}}
	if entrypoint != "" {
		opts.Entrypoint = []string{entrypoint}
	}
	for _, pair := range args[2:] {
		path, file, ok := strings.Cut(pair, "=")
		if !ok {
			return fmt.Errorf("%q is not PATH=FILE", pair)
		}
		opts.Files[path] = file
	}
	return testguest.WriteImage(args[1], args[0], opts)
}

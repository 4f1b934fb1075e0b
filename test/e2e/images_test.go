package e2e

import (
	"context"

	"github.com/wasmshim/containerd-shim-wasm/internal/testguest"
)

// Images of the tests, imported once for each run. They have a tag other than "latest", so that Kubernetes does
// not try to pull them.
const (
	probeImage  = "example.com/e2e/probe:1"  // /app.wasm is the probe; also busybox, for execs that must be refused
	nativeImage = "example.com/e2e/native:1" // /app is the same probe, compiled natively; and busybox
	helloImage  = "example.com/e2e/hello:1"  // only /app.wasm, which prints "hello from C"
)

var images = map[string]func() (testguest.ImageOpts, error){
	probeImage:  func() (testguest.ImageOpts, error) { return withBusybox("probe", "/app.wasm") },
	nativeImage: func() (testguest.ImageOpts, error) { return withBusybox("probe-native", "/app") },
	helloImage:  func() (testguest.ImageOpts, error) { return testguest.WasmImage("hello-c") },
}

// withBusybox returns the native image of busybox with the guest as its entry point.
func withBusybox(guest, path string) (testguest.ImageOpts, error) {
	opts, err := testguest.BusyboxImage()
	if err != nil {
		return opts, err
	}
	file, err := testguest.File(guest)
	if err != nil {
		return opts, err
	}
	opts.Files[path] = file
	opts.Entrypoint, opts.Cmd = []string{path}, nil
	return opts, nil
}

func importImages(ctx context.Context) error {
	for ref, options := range images {
		opts, err := options()
		if err != nil {
			return err
		}
		if err := cluster.ImportImage(ctx, ref, opts); err != nil {
			return err
		}
	}
	return importPackages(ctx)
}

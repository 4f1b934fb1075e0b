// Command demo shows the shim at work: it starts a private containerd, makes an
// image with a Go program compiled to Wasm and nothing else, and runs it with
// ctr. It touches no containerd that it did not start.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/wasmshim/containerd-shim-wasm/internal/testguest"
	"github.com/wasmshim/containerd-shim-wasm/internal/testnode"
)

func main() {
	if err := demo(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

const (
	image   = "example.com/demo/hello:latest"
	runtime = "io.containerd.wasm.v1"
)

func demo(ctx context.Context) (err error) {
	fmt.Println("==> starting a private containerd")
	node, err := testnode.Start(ctx, testnode.Options{LogLevel: "warn"})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, node.Stop()) }()
	fmt.Printf("    containerd %s in %s\n", node.Release, node.Dir)
	fmt.Println("==> compiling a Go program to Wasm and putting it into an image")
	if err := importHello(ctx, node); err != nil {
		return err
	}
	for _, what := range []string{"the first run compiles the module", "the second finds it compiled"} {
		if err := run(ctx, node, what); err != nil {
			return err
		}
	}
	return nil
}

func importHello(ctx context.Context, node *testnode.Node) error {
	opts, err := testguest.WasmImage("hello-go")
	if err != nil {
		return err
	}
	tar := filepath.Join(node.Dir, "hello.tar")
	if err := testguest.WriteImage(tar, image, opts); err != nil {
		return err
	}
	return node.ImportImage(ctx, tar)
}

func run(ctx context.Context, node *testnode.Node, what string) error {
	args := []string{"run", "--rm", "--runtime", runtime, image, "demo"}
	fmt.Printf("==> ctr %s    (%s)\n", strings.Join(args, " "), what)
	began := time.Now()
	result, err := node.RunCtr(ctx, testnode.CtrOpts{}, args...)
	if err != nil {
		return err
	}
	if result.Code != 0 {
		return fmt.Errorf("ctr ended with %d: %s", result.Code, result.Stderr)
	}
	fmt.Print(string(result.Stdout))
	fmt.Printf("    took %d ms\n", time.Since(began).Milliseconds())
	return nil
}

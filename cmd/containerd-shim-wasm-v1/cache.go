package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"strings"

	"github.com/wasmshim/containerd-shim-wasm/config"
	"github.com/wasmshim/containerd-shim-wasm/shim"
)

const warmVerb = "warm"

// warm compiles an image's modules ahead of time.
func warm(args []string) error {
	w := shim.Warming{}
	set := flag.NewFlagSet("cache warm", flag.ContinueOnError)
	set.StringVar(&w.Address, "address", env("CONTAINERD_ADDRESS", "/run/containerd/containerd.sock"), "containerd's `socket`")
	set.StringVar(&w.Namespace, "namespace", env("CONTAINERD_NAMESPACE", "default"), "containerd's `namespace`: k8s.io is the kubelet's")
	set.StringVar(&w.Snapshotter, "snapshotter", "overlayfs", "the `name` of the snapshotter that has unpacked the image")
	set.StringVar(&w.Config, "config", config.DefaultPath, "the `file` with the node's configuration, which names the cache")
	set.Usage = func() {
		fmt.Fprintln(set.Output(), "usage: containerd-shim-wasm-v1 cache warm [--address SOCKET] [--namespace NAME] [--config FILE] IMAGE")
		set.PrintDefaults()
	}
	err := set.Parse(args)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return nil
	case err != nil:
		return fmt.Errorf("cache warm: %w", err)
	case set.NArg() != 1:
		return errors.New("cache warm: name one image, as ctr images list shows it; see cache warm -h")
	}
	w.Image = set.Arg(0)
	lines, err := shim.Warm(context.Background(), w, shim.Programs{Worker: worker.place, Images: images.place})
	for _, line := range lines {
		if line != "" {
			fmt.Println(line)
		}
	}
	return err
}

func env(name, otherwise string) string {
	if value := os.Getenv(name); value != "" {
		return value
	}
	return otherwise
}

// runCache becomes wasm-images for the verbs about the compile cache, which has to be
// told what this shim's own engine is. It returns only if that fails.
func runCache(args []string) error {
	if len(args) < 2 || strings.HasPrefix(args[1], "-") {
		return runImages(args)
	}
	if args[1] == warmVerb {
		return warm(args[2:])
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

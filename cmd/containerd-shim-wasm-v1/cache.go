package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/sirupsen/logrus"

	"github.com/wasmshim/containerd-shim-wasm/config"
	"github.com/wasmshim/containerd-shim-wasm/internal/endpoint"
	"github.com/wasmshim/containerd-shim-wasm/internal/text"
	"github.com/wasmshim/containerd-shim-wasm/module"
	"github.com/wasmshim/containerd-shim-wasm/shim"
)

const warmVerb = "warm"

// warm compiles the modules of one image ahead of time, or with --watch those of all images as they arrive.
func warm(args []string) error {
	w := module.Warming{}
	n := module.Loader{StateDir: shim.StateDir, Programs: programs, Log: logrus.NewEntry(logrus.StandardLogger())}
	n.Log.Logger.SetLevel(logrus.WarnLevel)
	watch := false
	var containerd endpoint.Containerd
	set := flag.NewFlagSet("cache warm", flag.ContinueOnError)
	containerd.Flags(set)
	set.StringVar(&w.Snapshotter, "snapshotter", "overlayfs", "the `name` of the snapshotter that has unpacked the image")
	set.StringVar(&w.Config, "config", config.DefaultPath, "the `file` with the node's configuration, which names the cache")
	set.BoolVar(&watch, "watch", false, "go on for every image that is there or is pulled, until it is stopped")
	set.Usage = func() {
		fmt.Fprintln(set.Output(), "usage: containerd-shim-wasm-v1 cache warm [--address SOCKET] [--namespace NAME] [--config FILE] IMAGE|--watch")
		set.PrintDefaults()
	}
	err := set.Parse(args)
	n.Address, n.Namespace = containerd.Address, containerd.Namespace
	switch {
	case errors.Is(err, flag.ErrHelp):
		return nil
	case err != nil:
		return fmt.Errorf("cache warm: %w", err)
	case watch && set.NArg() == 0:
		return warmAll(&n, w)
	case watch || set.NArg() != 1:
		return errors.New("cache warm: name one image, as ctr images list shows it, or --watch; see cache warm -h")
	}
	w.Image = set.Arg(0)
	lines, err := n.Warm(context.Background(), w)
	for _, line := range lines {
		fmt.Println(text.Printable(line))
	}
	return err
}

// warmAll runs until SIGINT or SIGTERM. It reports modules that cannot be compiled, and continues.
func warmAll(n *module.Loader, w module.Warming) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	return n.WarmAll(ctx, w, func(image string, lines []string, err error) {
		for _, line := range lines {
			fmt.Println(text.Printable(image + ": " + line))
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, text.Printable(fmt.Sprintf("%s: %v", image, err)))
		}
	})
}

// runCache becomes wasm-client for the verbs about the compile cache, which need the name of this shim's own
// engine. It returns only if that fails.
func runCache(args []string) error {
	if len(args) < 2 || strings.HasPrefix(args[1], "-") {
		return runClient(args)
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
	return runClient(append([]string{args[0], args[1], "--engine", module.EngineKey(digest)}, args[2:]...))
}

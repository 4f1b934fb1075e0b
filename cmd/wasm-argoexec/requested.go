package main

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"runtime"

	"golang.org/x/sys/unix"

	"github.com/wasmshim/containerd-shim-wasm/artifact/progress"
	"github.com/wasmshim/containerd-shim-wasm/artifact/server"
	"github.com/wasmshim/containerd-shim-wasm/worker/control"
)

// serveRequested serves the artifacts that a pod asks for by annotation, until their container has ended.
func serveRequested(shim control.Worker) int {
	runtime.GOMAXPROCS(min(serveThreads, runtime.NumCPU()))
	log := slog.New(slog.NewTextHandler(os.Stderr, nil)).With("wasm.shim", "artifacts")
	order, err := shim.Serve()
	if err != nil {
		return 1
	}
	if err := shim.AwaitStart(); err != nil {
		return 1
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	if len(order.Abort) > 0 {
		return report(shim, server.AbortLeft(ctx, order))
	}
	n := len(order.Mounts)
	files := control.Descriptors(n + 2) // once: a second file of a descriptor would close it when it is collected
	artifacts, err := serveOrder(ctx, order, files, shim, log)
	if code := report(shim, err); code != 0 {
		return code
	}
	defer progress.Publish(files[n+1], artifacts.Progress)()
	finish, err := shim.AwaitFinish()
	if errors.Is(err, io.EOF) {
		err = errors.New("the shim has ended")
	}
	if err == nil {
		go func() {
			_, _ = shim.AwaitFinish() // until the shim closes its end: nobody waits any more
			cancel()
		}()
		err = artifacts.Finish(ctx, finish.Succeeded)
	}
	if err != nil {
		log.Error("store the outputs: none of those that failed is visible in its store", "error", err)
		err = errors.Join(err, artifacts.Abort())
	}
	if code := report(shim, err); code != 0 {
		return code
	}
	artifacts.Wait()
	runtime.KeepAlive(files)
	return 0
}

// serveOrder serves by the descriptors that the shim has given to this process.
func serveOrder(ctx context.Context, order control.Serve, files []*os.File, shim control.Worker, log *slog.Logger) (*server.Artifacts, error) {
	n := len(order.Mounts)
	spool, err := openSpool(files[n])
	if err != nil {
		return nil, err
	}
	noted := func(u control.Upload) {
		// An error means that the shim has ended: then this process aborts its uploads itself.
		_ = shim.Report(control.Report{Upload: &u})
	}
	artifacts, err := server.Find(ctx, order, server.Options{Spool: spool, Log: log, Noted: noted})
	if err != nil {
		return nil, err
	}
	return artifacts, artifacts.Serve(files[:n])
}

// openSpool opens the folder. Its descriptor stays open: it holds the mount of which the folder is the root.
func openSpool(folder *os.File) (*os.Root, error) {
	if err := unix.Fchdir(int(folder.Fd())); err != nil {
		return nil, &os.PathError{Op: "enter", Path: "the folder for what is written", Err: err}
	}
	spool, err := os.OpenRoot(".")
	return spool, errors.Join(err, os.Chdir("/"))
}

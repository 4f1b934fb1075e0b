package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/wasmshim/containerd-shim-wasm/internal/endpoint"
	"github.com/wasmshim/containerd-shim-wasm/module/cache"
	"github.com/wasmshim/containerd-shim-wasm/oci/ask"
	"github.com/wasmshim/containerd-shim-wasm/oci/store"
)

// keepLimit is the limit for the work of keep. dropLimit is how long it waits for containers that use the
// superfluous file.
const (
	keepLimit = 5 * time.Minute
	dropLimit = 5 * time.Second
)

// keeping is one request to keep an entry of the compile cache with an image.
type keeping struct {
	ask.Keep
	containerd *containerd
}

// labelName returns a name that distinguishes an image's labels: an image may hold several modules, each
// compiled by several engines.
func labelName(engine, module string) string {
	return engine[:min(12, len(engine))] + "." + module[:min(32, len(module))]
}

// keep is the shim's own verb: it stores compiled code in containerd, so that the code is removed with the
// image. The daemon starts keep while a module is being compiled, because the container may be gone soon, and
// writes a line when the container has started. If the daemon closes the input instead, keep does nothing.
func keep(ctx context.Context, args []string, stdio stdio) error {
	set := newFlags(ask.KeepVerb, "--cache DIR --engine KEY --module KEY --key KEY --size BYTES (--container ID | --image NAME)", stdio)
	k := keeping{containerd: containerdFlags(set)}
	k.Flags(set)
	if err := parse(set, args, 0, 0); err != nil {
		return err
	}
	// Use one processor only: nothing waits for keep.
	runtime.GOMAXPROCS(1)
	ctx, cancel := context.WithTimeout(ctx, keepLimit)
	defer cancel()
	return k.containerd.with(func(s *store.Store) error {
		target, err := targetOf(ctx, s, k.Keep)
		if err != nil {
			return err
		}
		// Lower the priority: the query was urgent, the copy is not.
		giveWay()
		if begin, err := ask.AwaitBegin(stdio.in); err != nil || !begin {
			return err
		}
		return errors.Join(k.keep(ctx, s, target), trim(ctx, k.Cache, k.CacheSize))
	})
}

// giveWay lowers the priority of every thread, because priorities belong to threads (setpriority(2), BUGS).
// New threads inherit it.
func giveWay() {
	tasks, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return
	}
	for _, task := range tasks {
		if id, err := strconv.Atoi(task.Name()); err == nil {
			_ = unix.Setpriority(unix.PRIO_PROCESS, id, 10)
		}
	}
}

// targetOf returns the image that the question names, or the image of its container.
func targetOf(ctx context.Context, s *store.Store, k ask.Keep) (store.Target, error) {
	switch {
	case k.Target != "":
		named := store.Target{Image: k.Image, Digest: digest.Digest(k.Target)}
		return named, named.Digest.Validate()
	case k.Image != "":
		return s.TargetOfImage(ctx, k.Image)
	}
	return s.TargetOf(ctx, k.Container)
}

func (k keeping) keep(ctx context.Context, s *store.Store, target store.Target) error {
	modules, err := cache.Open(k.Cache, k.Engine)
	if err != nil {
		return err
	}
	err = modules.Move(ctx, k.Module, k.Key, func(ctx context.Context, code *os.File, sum string) (string, cache.Image, error) {
		if target.Image == "" {
			return "", cache.Image{}, nil
		}
		image := cache.Image{Address: k.containerd.Address, Namespace: k.containerd.Namespace, Name: target.Image, Content: target.Digest.String()}
		path, err := s.Keep(ctx, target, labelName(k.Engine, k.Module), code, digest.NewDigestFromEncoded(digest.SHA256, sum))
		return path, image, err
	})
	if err != nil {
		return fmt.Errorf("keep compiled module %s: %w", k.Module, err)
	}
	ctx, cancel := context.WithTimeout(ctx, dropLimit)
	defer cancel()
	if err := modules.Drop(ctx, k.Module); err != nil && !errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("remove the cache's own copy of %s: %w", k.Module, err)
	}
	return nil
}

// trim reduces the cache to its size limit, and removes the blobs of removed entries too.
func trim(ctx context.Context, dir string, size int64) error {
	_, _, err := cache.Trim(ctx, dir, size, release)
	return err
}

// release makes every image of an entry release its blob.
func release(ctx context.Context, info cache.Info) error {
	var failures []error
	for _, image := range info.Images {
		if image.Content == "" {
			continue
		}
		failures = append(failures, releaseFrom(ctx, image, labelName(info.Engine, info.Digest)))
	}
	return errors.Join(failures...)
}

func releaseFrom(ctx context.Context, image cache.Image, name string) error {
	ctx, cancel := context.WithTimeout(ctx, releaseLimit)
	defer cancel()
	from := containerd{endpoint.Containerd{Address: image.Address, Namespace: image.Namespace}}
	err := from.with(func(s *store.Store) error { return s.Release(ctx, digest.Digest(image.Content), name) })
	if err != nil {
		return fmt.Errorf("image %s: %w", image.Name, err)
	}
	return nil
}

// releaseLimit is how long a containerd may take to release a blob.
const releaseLimit = 30 * time.Second

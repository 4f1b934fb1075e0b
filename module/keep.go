package module

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os/exec"
	"strings"

	"github.com/wasmshim/containerd-shim-wasm/config"
	"github.com/wasmshim/containerd-shim-wasm/oci/ask"
	"github.com/wasmshim/containerd-shim-wasm/sandbox"
)

// keeper is the program that gives compiled code to containerd, to be kept with the container's image
// (wasm-client keep). A nil keeper does nothing.
//
// Nothing depends on it: if it fails, the next container with that module keeps the code.
type keeper struct {
	container *Container
	settings  config.Config
	from      Source
	// input receives the program's input when it runs, and is closed if it does not run; nil before start.
	input chan io.WriteCloser
}

// imageKey distinguishes containers that may be of different images, by data that needs no question to
// containerd. Images with the same layers count as one if containerd does not report their names. If the
// image that was asked to keep an entry is removed then, the next container of the other compiles the module
// and keeps it.
func (k *keeper) imageKey() string {
	h := sha256.New()
	l, about := k.container.loader, k.container.about
	fmt.Fprintf(h, "%q %q %q %q", l.Address, l.Namespace, about.ImageName, layersOf(about.Rootfs))
	fmt.Fprintf(h, " %q %q", k.from.image.Image, k.from.image.Target)
	return hex.EncodeToString(h.Sum(nil)[:16])
}

func layersOf(rootfs []sandbox.Mount) string {
	for _, m := range rootfs {
		for _, option := range m.Options {
			if lower, ok := strings.CutPrefix(option, "lowerdir="); ok {
				return lower
			}
		}
	}
	return ""
}

// start starts the program, once, for the entry of the cache with a key, and returns without waiting. The
// program asks for the container's image while the container is sure to exist, and then waits.
func (k *keeper) start(key string) {
	if k == nil || k.input != nil {
		return
	}
	started := make(chan io.WriteCloser, 1)
	k.input = started
	go func() {
		defer close(started)
		input, err := k.run(key)
		if err != nil {
			k.complain(err, "")
			return
		}
		started <- input
	}()
}

// run starts the program and returns its input.
func (k *keeper) run(key string) (io.WriteCloser, error) {
	cmd, err := k.command(context.Background(), key, k.image())
	if err != nil {
		return nil, err
	}
	cmd.Dir = "/" // not the bundle, which is removed
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	input, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		if err := cmd.Wait(); err != nil {
			k.complain(err, stderr.String())
		}
	}()
	return input, nil
}

// image names the module's image.
func (k *keeper) image() ask.Keep {
	if image := k.from.image; image.Image != "" {
		return ask.Keep{Image: image.Image, Target: image.Target}
	}
	return ask.Keep{Container: k.container.about.ID}
}

// command returns the program for the entry with the given key in the cache, and for
// the image that q names; not started.
func (k *keeper) command(ctx context.Context, key string, q ask.Keep) (*exec.Cmd, error) {
	l := k.container.loader
	engine, err := l.prepareEngine()
	if err != nil {
		return nil, err
	}
	q.Cache, q.CacheSize = k.settings.CacheDir, k.settings.CacheSize
	q.Engine, q.Module, q.Key = engine.key, key, k.imageKey()
	return l.clientCommand(ctx, &q)
}

// cancel stops the program before it has stored anything.
func (k *keeper) cancel() {
	if k == nil || k.input == nil {
		return
	}
	go func() {
		if input, ok := <-k.input; ok {
			input.Close()
		}
	}()
}

// complain logs that the code is not kept; said is the program's output.
func (k *keeper) complain(err error, said string) {
	const what = "keep the compiled module with its image"
	log := k.container.loader.Log.WithError(err).WithField("container", k.container.about.ID)
	if said = strings.TrimSpace(said); said != "" {
		log.Debugf("%s: %s", what, said)
		return
	}
	log.Debug(what)
}

// Keep keeps the code with the container's image once begun has reported that the container has started.
// begun waits for the start.
func (c *Code) Keep(begun func() bool) {
	k := c.keeper
	if k == nil || k.input == nil {
		return
	}
	input, ok := <-k.input
	if !ok {
		return
	}
	defer input.Close()
	if !begun() {
		return
	}
	if err := ask.Begin(input); err != nil {
		k.complain(err, "")
	}
}

// Forget stops the keeper before it stores anything: the container was not created.
func (c *Code) Forget() { c.keeper.cancel() }

package shim

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os/exec"
	"strconv"
	"strings"

	"github.com/wasmshim/containerd-shim-wasm/sandbox"
)

// imageNameAnnotation is what CRI tells of a container's image.
const imageNameAnnotation = "io.kubernetes.cri.image-name"

// imageKey tells containers apart that may be of different images, by what is known
// without asking containerd. Images that have the same layers and, where containerd
// does not tell, other names are taken for one: if the one that was asked to keep an entry is removed, the
// next container of the other compiles the module and has it kept.
func (c *container) imageKey(module source) string {
	h := sha256.New()
	n := c.node.flags
	fmt.Fprintf(h, "%q %q %q %q", n.Address, n.Namespace, c.spec.Annotations[imageNameAnnotation], layersOf(c.rootfs))
	fmt.Fprintf(h, " %q %q", module.image.Image, module.image.Target)
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

// keeper is the program that gives compiled code to containerd, so that it goes with
// the container's image (wasm-images keep).
type keeper struct {
	// input gets the program's when it runs, and is closed if it does not.
	input <-chan io.WriteCloser
}

func (k keeper) started() bool { return k.input != nil }

// cancel has it end with nothing done.
func (k keeper) cancel() {
	if k.started() {
		go func() {
			if input, ok := <-k.input; ok {
				input.Close()
			}
		}()
	}
}

// startKeeper starts one for an entry of the cache, and nobody waits for that. It asks
// what the container's image is while the container is sure to exist, and then waits.
// Nothing depends on it: what it does not do, the next container with that module has
// done. A container without layers has no image.
func (c *container) startKeeper(module source, key string) keeper {
	if len(c.rootfs) == 0 {
		return keeper{}
	}
	started := make(chan io.WriteCloser, 1)
	go func() {
		defer close(started)
		input, err := c.runKeeper(c.imageKey(module), key, c.imageOf(module)...)
		if err != nil {
			c.node.log.WithError(err).WithField("container", c.id).Debug("keep the compiled module with its image")
			return
		}
		started <- input
	}()
	return keeper{started}
}

// imageOf returns the flags that name a module's image to wasm-images keep.
func (c *container) imageOf(module source) []string {
	if image := module.image; image.Image != "" {
		return []string{"--image", image.Image, "--target", image.Target}
	}
	return []string{"--container", c.id}
}

// runKeeper starts the program for the entry with the given key in the cache and the image that flags name,
// and returns its input.
func (c *container) runKeeper(imageKey, key string, image ...string) (io.WriteCloser, error) {
	cmd, err := c.node.keepCommand(context.Background(), c.settings, key, imageKey, image...)
	if err != nil {
		return nil, err
	}
	cmd.Dir = "/" // not the bundle, which goes
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
			c.node.log.WithError(err).WithField("container", c.id).Debugf("keep the compiled module with its image: %s", bytes.TrimSpace(stderr.Bytes()))
		}
	}()
	return input, nil
}

// keepCommand returns the program for the entry with the given key in the cache, and for
// the image that flags of wasm-images keep name; not started.
func (n *node) keepCommand(ctx context.Context, s settings, key, imageKey string, image ...string) (*exec.Cmd, error) {
	engine, err := n.prepareEngine()
	if err != nil {
		return nil, err
	}
	args := append(image, "--cache", s.CacheDir, "--size", strconv.FormatInt(s.CacheSize, 10),
		"--engine", engine.key, "--module", key, "--key", imageKey)
	return n.imagesCommand(ctx, "keep", args...)
}

// keep lets the keeper go on once the container has started.
func (c *container) keep(k keeper) {
	if !k.started() {
		return
	}
	input, ok := <-k.input
	if !ok {
		return
	}
	defer input.Close()
	if !c.init.awaitBegun() {
		return
	}
	if _, err := io.WriteString(input, "started\n"); err != nil {
		c.node.log.WithError(err).WithField("container", c.id).Debug("keep the compiled module with its image")
	}
}

package module

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/wasmshim/containerd-shim-wasm/oci/ask"
)

// WarmAll is Warm for every image that a namespace has or gets, until the context or containerd ends; w names
// no image. It reports each image with a line or an error. It does not report images that are not Wasm.
func (l *Loader) WarmAll(ctx context.Context, w Warming, tell func(image string, lines []string, err error)) error {
	cmd, err := l.clientCommand(ctx, &ask.Watch{})
	if err != nil {
		return err
	}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	names, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start wasm-client watch: %w", err)
	}
	for w.Image = range ask.ReadImages(names) {
		if strings.HasPrefix(w.Image, "sha256:") {
			continue // CRI's second name for an image that has another name
		}
		warmed, err := l.warmSoon(ctx, w)
		if !errors.Is(err, ErrNative) {
			tell(w.Image, warmed, err)
		}
	}
	err = cmd.Wait()
	if ctx.Err() != nil {
		return nil
	}
	return fmt.Errorf("%s: %w", bytes.TrimSpace(stderr.Bytes()), err)
}

// warmPatience is how long a new image may take to be unpacked: containerd reports some images before that.
const warmPatience = 10 * time.Second

// warmSoon retries for up to warmPatience if an image is not ready.
func (l *Loader) warmSoon(ctx context.Context, w Warming) ([]string, error) {
	deadline := time.Now().Add(warmPatience)
	for wait := 50 * time.Millisecond; ; wait *= 2 {
		lines, err := l.Warm(ctx, w)
		if err == nil || errors.Is(err, ErrNative) || ctx.Err() != nil || time.Now().Add(wait).After(deadline) {
			return lines, err
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
		}
	}
}

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

// WarmAll is Warm for every image that a namespace has and comes to have, until the
// context or containerd ends; w names no image. It tells of each image by a line or an
// error, and of those that are not Wasm nothing.
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
			continue // CRI's second name for an image that has another
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

// warmPatience is how long a new image may take to be unpacked: containerd tells of
// some before.
const warmPatience = 10 * time.Second

// warmSoon tries again for a while when an image is not ready.
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

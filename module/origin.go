package module

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"sync"

	"github.com/wasmshim/containerd-shim-wasm/oci"
	"github.com/wasmshim/containerd-shim-wasm/oci/ask"
)

// origin records the Wasm modules of a container's image when they are first asked for: a start and all later
// execs are of one image, even if its name moves.
type origin struct {
	mu    sync.Mutex
	found *oci.Found
	// noted is closed when containerd has the note of the image, so that the next start of the container is
	// of the same image, too.
	noted chan struct{}
}

// image returns the Wasm modules of the container's image: none, and no error, if it has no image or its
// image has none.
func (c *Container) image(ctx context.Context) (oci.Found, error) {
	o := &c.origin
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.found != nil {
		return *o.found, nil
	}
	found, note, err := c.loader.findImage(ctx, c.about.ID)
	if err != nil {
		return oci.Found{}, err
	}
	o.found, o.noted = &found, make(chan struct{})
	go func() {
		defer close(o.noted)
		if err := note(); err != nil {
			c.loader.Log.WithError(err).WithField("container", c.about.ID).
				Warn("note the image's manifest in containerd: a later start of this container may be of another image if the name moves")
		}
	}()
	return found, nil
}

// AwaitNote returns when containerd has the note of the container's image, if the image was asked for.
func (o *origin) AwaitNote(ctx context.Context) {
	o.mu.Lock()
	noted := o.noted
	o.mu.Unlock()
	if noted == nil {
		return
	}
	select {
	case <-noted:
	case <-ctx.Done():
	}
}

// findImage returns the Wasm modules in the image of one of containerd's containers. note waits until the
// image is noted in containerd. The program does that after it has answered: a container starts meanwhile.
func (l *Loader) findImage(ctx context.Context, containerID string) (found oci.Found, note func() error, err error) {
	ctx, cancel := context.WithTimeout(ctx, ask.FindLimit)
	defer cancel()
	cmd, err := l.clientCommand(context.Background(), &ask.Find{Container: containerID})
	if err != nil {
		return oci.Found{}, nil, err
	}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	answer, err := cmd.StdoutPipe()
	if err != nil {
		return oci.Found{}, nil, err
	}
	if err := cmd.Start(); err != nil {
		return oci.Found{}, nil, fmt.Errorf("start wasm-client find: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { _ = cmd.Process.Kill() })
	found, decodeErr := ask.ReadFound(answer)
	inTime := stop()
	if decodeErr == nil {
		return found, func() error { return said(cmd, &stderr) }, nil
	}
	err = said(cmd, &stderr)
	switch {
	case !inTime:
		err = fmt.Errorf("containerd has not answered wasm-client find within %s: %w", ask.FindLimit, ctx.Err())
	case err == nil:
		err = fmt.Errorf("read the answer of wasm-client find: %w", decodeErr)
	}
	return oci.Found{}, nil, err
}

// said waits for the end of wasm-client find, and returns its message as an error.
func said(cmd *exec.Cmd, stderr *bytes.Buffer) error {
	err := cmd.Wait()
	text := bytes.TrimSpace(stderr.Bytes())
	switch {
	case err == nil:
		return nil
	case len(text) > 0:
		return errors.New(string(text))
	}
	return fmt.Errorf("wasm-client find: %w", err)
}

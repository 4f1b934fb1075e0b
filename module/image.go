package module

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"time"

	"github.com/wasmshim/containerd-shim-wasm/internal/endpoint"
	"github.com/wasmshim/containerd-shim-wasm/oci"
	"github.com/wasmshim/containerd-shim-wasm/oci/ask"
)

// find returns the Wasm modules of an image.
func (l *Loader) find(ctx context.Context, image string) (oci.Found, error) {
	output, err := l.runClient(ctx, ask.FindLimit, &ask.Find{Image: image})
	if err != nil {
		return oci.Found{}, err
	}
	found, err := ask.ReadFound(bytes.NewReader(output))
	if err != nil {
		return oci.Found{}, fmt.Errorf("read the answer of wasm-client find: %w", err)
	}
	return found, nil
}

// runClient runs the program that asks containerd about images, and returns what it prints. The error is the
// program's own message.
func (l *Loader) runClient(ctx context.Context, limit time.Duration, q ask.Question) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	cmd, err := l.clientCommand(ctx, q)
	if err != nil {
		return nil, err
	}
	// A process that it leaves behind must not delay a container.
	cmd.WaitDelay = time.Second
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	output, err := cmd.Output()
	said := string(bytes.TrimSpace(stderr.Bytes()))
	switch {
	case err == nil:
		return output, nil
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		return nil, fmt.Errorf("containerd has not answered wasm-client %s within %s", q.Verb(), limit)
	case said != "":
		return nil, errors.New(said)
	}
	return nil, fmt.Errorf("wasm-client %s: %w", q.Verb(), err)
}

// Trace has that program tell an OpenTelemetry collector what was done for artifacts, which is in a file
// (ask.WriteTraced). env configures it. Trace does not wait for the collector: done is called later, with an error if the
// spans are lost.
func (l *Loader) Trace(traced *os.File, env []string, done func(error)) error {
	cmd, err := l.clientCommand(context.Background(), &ask.Trace{})
	if err != nil {
		return err
	}
	var said bytes.Buffer
	cmd.Stdin, cmd.Stderr, cmd.Env = traced, &said, append(cmd.Env, env...)
	if err := cmd.Start(); err != nil {
		return err
	}
	go func() {
		err := cmd.Wait()
		if text := bytes.TrimSpace(said.Bytes()); err != nil && len(text) > 0 {
			err = errors.New(string(text))
		}
		done(err)
	}()
	return nil
}

// clientFD is the descriptor by which that program finds its own file when it is executed.
const clientFD = 3

// clientCommand returns that program with a question about our namespace of our containerd, not started. Of
// our environment it gets only PATH.
func (l *Loader) clientCommand(ctx context.Context, q ask.Question) (*exec.Cmd, error) {
	program, err := l.prepareClient()
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, fmt.Sprintf("/proc/self/fd/%d", clientFD), ask.Line(endpoint.Containerd{Address: l.Address, Namespace: l.Namespace}, q)...)
	cmd.Args[0] = program.Name()
	cmd.ExtraFiles = []*os.File{program}
	cmd.Env = []string{"PATH=" + os.Getenv("PATH")}
	return cmd, nil
}

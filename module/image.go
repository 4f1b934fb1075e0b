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

// find returns what an image holds of Wasm.
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

// runClient asks the program that asks containerd about images, and returns
// what it prints. What it says went wrong is the error.
func (l *Loader) runClient(ctx context.Context, limit time.Duration, q ask.Question) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	cmd, err := l.clientCommand(ctx, q)
	if err != nil {
		return nil, err
	}
	// Nothing that it might leave behind may hold a container up.
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

// clientFD is where that program finds its own file when it is executed.
const clientFD = 3

// clientCommand returns that program with a question about our namespace of our containerd,
// not started. It gets nothing of our environment but where programs are.
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

package shim

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/wasmshim/containerd-shim-wasm/shim/stdio"
	"github.com/wasmshim/containerd-shim-wasm/worker/control"
)

// newHelper returns an exec that no caller has asked for. It writes to the container's own log.
func (c *container) newHelper(id string, process *specs.Process, runs payload, files []*os.File) *process {
	p := newProcess(c, id, added, process, runs, stdio.Names{Stderr: c.init.streams.Stderr})
	p.files = files
	return p
}

// startHelper starts such an exec. It removes one that does not start.
func (c *container) startHelper(ctx context.Context, p *process) error {
	if err := c.addExec(p); err != nil {
		p.progress.Close() // fails only for one without
		return err
	}
	err := c.startExec(ctx, p)
	if err != nil {
		c.removeHelper(p)
	}
	return err
}

// endHelper kills an exec of ours and removes it.
func (c *container) endHelper(ctx context.Context, p *process) error {
	defer c.removeHelper(p)
	_ = p.signal(unix.SIGKILL) // fails only for one that has ended
	ctx, cancel := context.WithTimeout(ctx, abortLimit)
	defer cancel()
	return p.await(ctx, phase.isOver)
}

// removeHelper also ends what the helper has said of its progress.
func (c *container) removeHelper(p *process) {
	p.progress.Close() // fails only for one without
	ctx, cancel := context.WithTimeout(context.Background(), abortLimit)
	defer cancel()
	if _, err := c.deleteExec(ctx, p); err != nil {
		c.daemon.log.WithError(err).WithField("container", c.id).WithField("exec", p.id).Warn("remove an exec of the shim's own: it stays until the container ends")
	}
}

// helper is our program when it prepares something for another container of the pod. It reports the result.
type helper struct{ argoExecutor }

func (helper) started(ctx context.Context, w *worker) error {
	_, err := awaitReport(ctx, w, waitLog)
	return err
}

// Places that have the errors of our programs, for messages: a helper writes to the log of the wait container in which it
// is, and the program that serves artifacts by annotation to that of the container that asks for them.
const (
	waitLog = "the log of the wait container"
	ownLog  = "the container's own log"
)

// awaitReport waits for the report of a program that writes to a log.
func awaitReport(ctx context.Context, w *worker, log string) (control.Report, error) {
	stop := w.readUntil(ctx)
	defer stop()
	report, err := w.control.Report()
	if errors.Is(err, io.EOF) {
		err = fmt.Errorf("the program has ended without a report; %s may have its error: %w", log, err)
	}
	return report, errors.Join(err, report.Err())
}

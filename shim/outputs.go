package shim

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/wasmshim/containerd-shim-wasm/worker/control"
)

// uploadFailed is the exit code of a container that has succeeded and whose outputs could not be stored (EX_IOERR of
// sysexits.h).
const uploadFailed = 74

// storeOutputs has the outputs stored of a container whose process has ended with a status, and returns the status that
// the container ends with.
func (c *container) storeOutputs(status int) int {
	r := c.requested
	if r == nil || !r.outputs {
		return status
	}
	r.finishing.Store(true)
	p := r.server.Load()
	if p == nil {
		return status
	}
	err := r.finish(p, status == 0)
	if err == nil {
		return status
	}
	c.daemon.log.WithError(err).WithField("container", c.id).Error("store the container's outputs: those that failed are not visible in their stores")
	if status != 0 {
		return status
	}
	if err := leaveMessage(c.spec, err.Error()); err != nil {
		c.daemon.log.WithError(err).WithField("container", c.id).Warn("write the container's termination message: only its log and this one say why it has failed")
	}
	return uploadFailed
}

// finish waits until the outputs are stored or have failed. SIGKILL for the container ends it.
func (r *requested) finish(p *process, succeeded bool) error {
	_, w, _ := p.look()
	if err := w.control.Finish(control.Finish{Succeeded: succeeded}); err != nil {
		return fmt.Errorf("the program that stores them has ended: %w", err)
	}
	select {
	case err := <-r.finished:
		return err
	case <-r.ctx.Done():
		return errors.New("the container was killed while its outputs were uploaded")
	}
}

// stuckLimit is how long a container that has been killed may wait for the program that serves its artifacts: to read an
// input, or to have outputs stored that are wanted in any case.
const stuckLimit = 5 * time.Second

// giveUp is for a container that is killed. If its process has ended already, the upload of its outputs is ended.
// Otherwise reads are ended that wait for a program that may be stopped. It is a no-op for nil.
func (r *requested) giveUp() {
	if r == nil {
		return
	}
	if r.finishing.Load() {
		r.givingUp()
		return
	}
	if !r.outputs {
		r.server.Load().cutOff()
		return
	}
	time.AfterFunc(stuckLimit, func() {
		if r.finishing.Load() {
			r.givingUp()
		} else {
			r.server.Load().cutOff()
		}
	})
}

// end ends the program. It is a no-op for nil.
func (r *requested) end(c *container) {
	if r == nil {
		return
	}
	r.givingUp()
	p := r.server.Swap(nil)
	if p == nil {
		return
	}
	patience := lastReads
	if _, w, _ := p.look(); w != nil {
		if r.outputs {
			patience = lastUploads
		} else {
			_ = w.control.Finish(control.Finish{Succeeded: true}) // fails only for one that has ended
		}
		_ = w.control.End() // it aborts uploads that are still open
	}
	c.endServer(p, patience)
	r.removeSpool(c)
	if err := r.abortLeft(c, p.container); err != nil {
		c.daemon.log.WithError(err).WithField("container", c.id).Warn("abort uploads that have not been finished: their parts stay in the store, invisible, until a rule of the bucket removes them")
	}
}

// abortLeft aborts uploads that a program has left which was killed.
func (r *requested) abortLeft(c, pause *container) error {
	order := r.order
	order.Abort = r.uploads.left()
	if len(order.Abort) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), lastUploads)
	defer cancel()
	p := c.newServer("wasm-shim-abort-", pause, &order)
	if err := pause.startHelper(ctx, p); err != nil {
		return err
	}
	return pause.endHelper(ctx, p)
}

// lastUploads is how long the program may take to abort its uploads.
const lastUploads = 5 * time.Second

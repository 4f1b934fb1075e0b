package shim

import (
	"context"
	"errors"
	"fmt"

	eventsapi "github.com/containerd/containerd/api/events"
	tasks "github.com/containerd/containerd/api/runtime/task/v2"
	"github.com/containerd/errdefs"
	"google.golang.org/protobuf/types/known/emptypb"
)

// freezing is the state of a container's freezer.
type freezing int

const (
	thawed freezing = iota
	pausing
	paused
)

// closed returns the reason why no exec can be launched in the container, or nil if one can. The caller holds
// c.mu.
func (c *container) closed() error {
	if c.over {
		return fmt.Errorf("its process has ended: %w", errdefs.ErrFailedPrecondition)
	}
	if c.freezing != thawed {
		return errPaused
	}
	return nil
}

// errPaused refuses an exec: a worker that starts in a frozen cgroup would never be ready.
var errPaused = fmt.Errorf("cannot exec in a paused container: %w", errdefs.ErrFailedPrecondition)

// open is like closed, for a caller that does not hold c.mu.
func (c *container) open() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.closed()
}

// admit admits an exec to the container, unless another program has frozen the cgroup. The caller calls
// settle when the exec runs or has failed, and leave when its worker has ended or there is none.
func (c *container) admit() error {
	frozen, err := c.cgroup.Frozen()
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.closed(); err != nil {
		return err
	}
	if frozen {
		return errPaused
	}
	c.starting++
	c.inside++
	return nil
}

// settle wakes callers that wait for the execs that are starting.
func (c *container) settle() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.starting--
	c.wake()
}

// leave wakes callers that wait for the execs that have a worker.
func (c *container) leave() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.inside--
	c.wake()
}

// wake makes awaitExecs check again. The caller holds c.mu.
func (c *container) wake() {
	close(c.counted)
	c.counted = make(chan struct{})
}

// close admits no more execs, and cancels those that are being launched.
func (c *container) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.over = true
	for _, p := range c.execs {
		p.callOff()
	}
}

// awaitExecs waits until done, which it calls under c.mu, reports that few enough execs are left.
func (c *container) awaitExecs(ctx context.Context, done func() bool) error {
	for {
		c.mu.Lock()
		enough, counted := done(), c.counted
		c.mu.Unlock()
		if enough {
			return nil
		}
		select {
		case <-counted:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Pause freezes every process of the container. It first waits for execs that are starting to become ready,
// and admits no other.
func (c *container) Pause(ctx context.Context, _ *tasks.PauseRequest) (*emptypb.Empty, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if err := c.beginPause(cancel); err != nil {
		return nil, fmt.Errorf("cannot pause container %s: %w", c.id, err)
	}
	err := c.awaitExecs(ctx, func() bool { return c.starting == 0 })
	if err == nil {
		err = c.cgroup.Freeze(ctx)
	}
	if err := c.endPause(ctx, err); err != nil {
		return nil, fmt.Errorf("pause container %s: %w", c.id, err)
	}
	return empty, nil
}

// beginPause admits no more execs. cancel cancels the pause, see forbidPause.
func (c *container) beginPause(cancel func()) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.init.now() != running || c.freezing != thawed {
		return fmt.Errorf("it is not running: %w", errdefs.ErrFailedPrecondition)
	}
	if c.killed {
		return errKilled
	}
	c.freezing, c.callOff = pausing, cancel
	return nil
}

// endPause records the result of the freeze. It undoes a cancelled one.
func (c *container) endPause(ctx context.Context, err error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.freezing, c.callOff = thawed, nil
	if err != nil {
		return err
	}
	if c.init.now() != running {
		return fmt.Errorf("its process has ended: %w", errdefs.ErrFailedPrecondition)
	}
	if c.killed {
		return errors.Join(errKilled, c.cgroup.Thaw())
	}
	if ctx.Err() != nil {
		return errors.Join(ctx.Err(), c.cgroup.Thaw())
	}
	c.freezing = paused
	c.events.send(&eventsapi.TaskPaused{ContainerID: c.id})
	return nil
}

// Resume thaws every process of the container.
func (c *container) Resume(context.Context, *tasks.ResumeRequest) (*emptypb.Empty, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.init.now() != running || c.freezing != paused {
		return nil, fmt.Errorf("cannot resume container %s: it is not paused: %w", c.id, errdefs.ErrFailedPrecondition)
	}
	if err := c.cgroup.Thaw(); err != nil {
		return nil, fmt.Errorf("resume container %s: %w", c.id, err)
	}
	c.freezing = thawed
	c.events.send(&eventsapi.TaskResumed{ContainerID: c.id})
	return empty, nil
}

// errKilled refuses a pause beside a kill.
var errKilled = fmt.Errorf("it is being killed: %w", errdefs.ErrFailedPrecondition)

// forbidPause refuses later pauses and cancels a pending one. It comes before SIGKILL: on cgroup v1 a process
// that is frozen before it has taken the signal does not die of it.
func (c *container) forbidPause() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.killed = true
	if c.freezing == pausing {
		c.callOff()
	}
}

// thaw thaws the container's processes, even if another program froze them: on cgroup v1 a frozen process
// does not die of SIGKILL.
func (c *container) thaw() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.freezing == pausing {
		return nil // forbidPause has cancelled the pause, and endPause thaws
	}
	err := c.cgroup.Thaw()
	if err != nil && c.freezing == paused {
		return fmt.Errorf("thaw container %s to kill it: %w", c.id, err)
	}
	c.freezing = thawed
	return nil
}

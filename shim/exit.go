package shim

import (
	"context"
	"time"

	eventsapi "github.com/containerd/containerd/api/events"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/wasmshim/containerd-shim-wasm/children"
	"github.com/wasmshim/containerd-shim-wasm/sandbox"
)

// watch waits for the end of a launched process, publishes it, and ends what served it. The container's own exit comes last, after
// the exits of its execs.
func (p *process) watch() {
	c := p.container
	_, w, _ := p.look()
	e := w.wait()
	if p.id == "" {
		c.endExecs()
	} else {
		w.Reap()
		defer c.leave()
	}
	w.drain()
	if p.id == "" {
		e.Status = c.storeOutputs(e.Status)
		w.Reap() // not before: while outputs are stored, it is still reported as a process
		if err := c.command.leaveExitCode(c.spec, e.Status); err != nil {
			c.daemon.log.WithError(err).WithField("container", c.id).Warn("write exit code for Argo: the workflow may wait for this container")
		}
	}
	p.finish(e)
	if p.id == "" {
		c.endArtifacts()
		close(c.gone)
	}
}

// finish publishes how the process ended. A pending start, even one that begins only now, fails or is
// published first: no exit comes before its start.
func (p *process) finish(e children.End) {
	for !p.tellEnd(e) {
		_ = p.await(context.Background(), func(f phase) bool { return f != starting })
	}
}

// tellEnd publishes how the process ended, and reports whether it did: it does not while the process is being
// started.
func (p *process) tellEnd(e children.End) bool {
	c := p.container
	// A caller that sees that the process has ended (Delete) waits for this lock, so no later event overtakes
	// this one.
	c.mu.Lock()
	defer c.mu.Unlock()
	// Look before the step: from then on a caller may have the cgroup removed (Delete), and the kernel's count
	// with it.
	kills := c.oomKills(e)
	var begun bool // read with the step: a deletion may take the next one at once
	if p.step(ended, func() { p.end, begun = e, p.begun }) != nil {
		return false
	}
	p.worker.hangUp()
	c.tellOOM(kills)
	if p.id == "" {
		c.recordExit(e)
	}
	if p.id != "" && !begun {
		return true // its start has not been published
	}
	c.events.send(&eventsapi.TaskExit{
		ContainerID: c.id, ID: p.name(), Pid: uint32(p.worker.PID), ExitStatus: uint32(e.Status), ExitedAt: timestamppb.New(e.At),
	})
	return true
}

// drainLimit bounds the wait for a terminal's last output.
const drainLimit = 2 * time.Second

// drain waits until the process's output has been passed on.
func (w *worker) drain() {
	ctx, cancel := context.WithTimeout(context.Background(), drainLimit)
	defer cancel()
	w.io.Drain(ctx)
}

// execLimit bounds the wait for the execs of a container whose own process has ended. All of them have been
// killed; one that hangs in the kernel must not hide the end of the container.
const execLimit = 10 * time.Second

// endExecs ends the execs of a container whose own process has ended, and admits no more. In a pid namespace
// of its own the kernel has killed them already (pid_namespaces(7)); in a shared one, or apart, they still run.
func (c *container) endExecs() {
	c.close()
	if !sandbox.CreatesNamespace(c.spec.Linux, specs.PIDNamespace) || c.hasExecApart() {
		if err := c.cgroup.Kill(); err != nil {
			c.daemon.log.WithError(err).WithField("container", c.id).Warn("kill the execs of a container that has ended: they may go on")
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), execLimit)
	defer cancel()
	if err := c.awaitExecs(ctx, func() bool { return c.inside == 0 }); err != nil {
		c.daemon.log.WithError(err).WithField("container", c.id).Warn("wait for the execs of a container that has ended")
	}
}

func (c *container) hasExecApart() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, p := range c.execs {
		if p.apart {
			return true
		}
	}
	return false
}

// oomKills returns how many of the container's processes the kernel has killed for memory, 0 if the process
// that ended as e says was none of them. We see the end of every process of the container, or of its parent
// (Argo's), which ends with the exit code of a killed program. So a look at that time misses no kill.
func (c *container) oomKills(e children.End) uint64 {
	if e.Status != children.Killed {
		return 0
	}
	kills, err := c.cgroup.OOMKills()
	if err != nil {
		c.daemon.log.WithError(err).WithField("container", c.id).Warn("read how often the kernel killed for memory: containerd is told of no OOM")
		return 0
	}
	return kills
}

// tellOOM publishes that the kernel killed for memory, if it did so since the last time.
func (c *container) tellOOM(kills uint64) {
	if kills > c.ooms {
		c.ooms = kills
		c.events.send(&eventsapi.TaskOOM{ContainerID: c.id})
	}
}

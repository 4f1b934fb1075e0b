package cgroup

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"time"

	"github.com/opencontainers/cgroups"
	"golang.org/x/sys/unix"
)

const (
	// killTimeout is how long Kill waits for killed processes to end. A process
	// that has not ended by then hangs in the kernel.
	killTimeout = 10 * time.Second
	// quietTimeout is how long Kill waits for a freeze before it kills processes
	// that are not frozen.
	quietTimeout = 500 * time.Millisecond
)

// freezer has the file that freezes, the values to write to it, and the file and
// the line that show that all is frozen (cgroup-v2.rst, freezer-subsystem.rst).
type freezer struct {
	controller, file, freeze, thaw string
	stateFile, frozen              string
}

func (c *Cgroup) freezer() freezer {
	if c.unified {
		return freezer{"", "cgroup.freeze", "1", "0", "cgroup.events", "frozen 1"}
	}
	return freezer{"freezer", "freezer.state", "FROZEN", "THAWED", "freezer.state", "FROZEN"}
}

// Freeze stops all processes of the cgroup and returns when none runs any more.
// When ctx ends first, Freeze thaws them and returns ctx's error.
func (c *Cgroup) Freeze(ctx context.Context) error {
	f := c.freezer()
	dir := c.manager.Path(f.controller)
	err := poll(ctx, func() (bool, error) {
		// v1 needs the write again when a new process has appeared.
		if err := cgroups.WriteFile(dir, f.file, f.freeze); err != nil {
			return false, err
		}
		state, err := cgroups.ReadFile(dir, f.stateFile)
		return containsLine(state, f.frozen), err
	})
	if err == nil {
		return nil
	}
	return errors.Join(fmt.Errorf("freeze cgroup %s: %w", c.name(), err), ignoreGone(c.Thaw()))
}

// Thaw lets the processes run again. It is a no-op when they are not frozen.
func (c *Cgroup) Thaw() error {
	f := c.freezer()
	if err := cgroups.WriteFile(c.manager.Path(f.controller), f.file, f.thaw); err != nil {
		return fmt.Errorf("thaw cgroup %s: %w", c.name(), err)
	}
	return nil
}

// Frozen reports whether the processes are frozen or about to be, by Freeze or by another
// program, through this cgroup or one above it. Without a freezer it returns false.
func (c *Cgroup) Frozen() (bool, error) {
	f := c.freezer()
	dir := c.manager.Path(f.controller)
	if dir == "" {
		return false, nil // v1: the freezer hierarchy is not mounted
	}
	state, err := cgroups.ReadFile(dir, f.stateFile)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("read whether cgroup %s is frozen: %w", c.name(), err)
	}
	return containsLine(state, f.frozen) || containsLine(state, "FREEZING"), nil
}

// Kill kills all processes of the cgroup and of cgroups below it, frozen ones
// too, and returns when they have ended. The caller must still wait for them
// (wait(2)). Kill is a no-op when there are none or the cgroup is gone. The error
// names a process that does not end.
func (c *Cgroup) Kill() error {
	ctx, cancel := context.WithTimeout(context.Background(), killTimeout)
	defer cancel()
	var left []int
	err := poll(ctx, func() (empty bool, err error) {
		if left, err = c.Pids(); err != nil || len(left) == 0 {
			return true, err
		}
		return false, ignoreGone(c.killOnce(ctx))
	})
	if errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("kill cgroup %s: process %d does not end", c.name(), left[0])
	}
	if err != nil {
		return fmt.Errorf("kill cgroup %s: %w", c.name(), err)
	}
	return nil
}

func (c *Cgroup) killOnce(ctx context.Context) error {
	if c.unified {
		err := cgroups.WriteFile(c.manager.Path(""), "cgroup.kill", "1")
		if err == nil || !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	// Without cgroup.kill (v1, Linux before 5.14): a frozen process does not fork
	// and does not end. So the list is complete, and the kernel reuses no pid on it.
	// A process that does not freeze in time is killed too.
	ctx, cancel := context.WithTimeout(ctx, quietTimeout)
	defer cancel()
	freezeErr := c.Freeze(ctx)
	pids, err := c.Pids()
	if err != nil {
		return err
	}
	for _, pid := range pids {
		if err := unix.Kill(pid, unix.SIGKILL); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("kill process %d: %w", pid, err)
		}
	}
	if freezeErr != nil {
		return nil // Freeze has thawed
	}
	// On v1, SIGKILL takes effect when the process runs again.
	return c.Thaw()
}

// poll calls done at growing intervals until done returns true or an error, or ctx
// ends.
func poll(ctx context.Context, done func() (bool, error)) error {
	for delay := 200 * time.Microsecond; ; delay = min(2*delay, 10*time.Millisecond) {
		if ok, err := done(); ok || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(delay):
		}
	}
}

// ignoreGone returns nil for an error that means that the cgroup does not exist.
func ignoreGone(err error) error {
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENODEV) {
		return nil
	}
	return err
}

func containsLine(text, line string) bool {
	for l := range strings.SplitSeq(text, "\n") {
		if l == line {
			return true
		}
	}
	return false
}

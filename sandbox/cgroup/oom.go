package cgroup

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"github.com/opencontainers/cgroups/fscommon"
)

// OOMKills returns how many processes of the cgroup and of those below it the
// kernel has killed for lack of memory, whosever the exhausted limit was.
//
// systemd removes a scope as soon as its last process has ended, and the count
// with it. Of a scope on v2 that is gone it therefore returns how many kills the
// slice has counted since the scope began; those of the slice's other units are
// among them, so it is an answer only for a process that was killed.
func (c *Cgroup) OOMKills() (uint64, error) {
	count, err := c.manager.OOMKillCount()
	if errors.Is(err, fs.ErrNotExist) && c.unified && c.config.Systemd {
		inSlice, sliceErr := c.killsInSlice()
		return inSlice - min(inSlice, c.killsBefore), sliceErr
	}
	if err != nil {
		return 0, fmt.Errorf("out-of-memory kills of cgroup %s: %w", c.name(), err)
	}
	return count, nil
}

// killsInSlice reads the slice's count, which the kernel keeps for everything
// below it, also when that is gone (cgroup-v2.rst, memory.events).
func (c *Cgroup) killsInSlice() (uint64, error) {
	slice := filepath.Dir(c.manager.Path(""))
	count, err := fscommon.GetValueByKey(slice, "memory.events", "oom_kill")
	if err != nil {
		return 0, fmt.Errorf("out-of-memory kills of slice %s: %w", slice, err)
	}
	return count, nil
}

package cgroup

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"github.com/opencontainers/cgroups/fscommon"
)

// OOMKills returns how many processes of the cgroup and of the cgroups below it
// the kernel has killed for lack of memory. The exhausted limit may be that of any
// cgroup.
//
// systemd removes a scope, and its count, as soon as the scope's last process has
// ended. For a removed scope on v2, OOMKills therefore returns how many kills the
// slice has counted since the scope began. This number includes the kills of the
// slice's other units: use it only for a process that was killed.
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

// killsInSlice reads the slice's count. The kernel counts there for all cgroups
// below the slice, and keeps the count when they are removed (cgroup-v2.rst,
// memory.events).
func (c *Cgroup) killsInSlice() (uint64, error) {
	slice := filepath.Dir(c.manager.Path(""))
	count, err := fscommon.GetValueByKey(slice, "memory.events", "oom_kill")
	if err != nil {
		return 0, fmt.Errorf("out-of-memory kills of slice %s: %w", slice, err)
	}
	return count, nil
}

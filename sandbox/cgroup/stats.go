package cgroup

import (
	"fmt"
	"math"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/containerd/cgroups/v3/cgroup1"
	"github.com/containerd/cgroups/v3/cgroup2"
	"github.com/opencontainers/cgroups"
	"github.com/opencontainers/cgroups/fscommon"
)

const unifiedMountpoint = "/sys/fs/cgroup"

// Stats returns the same as containerd's own shim for a Stats request, read by the
// same code: a *Metrics of github.com/containerd/cgroups/v3/cgroup1/stats or
// cgroup2/stats. Controllers that the node lacks are left out.
func (c *Cgroup) Stats() (any, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.stat == nil {
		load := c.loadV1
		if c.unified {
			load = c.loadV2
		}
		stat, err := load()
		if err != nil {
			return nil, fmt.Errorf("statistics of cgroup %s: %w", c.name(), err)
		}
		c.stat = stat
	}
	metrics, err := c.stat()
	if err != nil {
		return nil, fmt.Errorf("statistics of cgroup %s: %w", c.name(), err)
	}
	return metrics, nil
}

func (c *Cgroup) loadV1() (func() (any, error), error) {
	paths := c.Paths()
	group, err := cgroup1.Load(func(name cgroup1.Name) (string, error) {
		for _, controller := range []string{string(name), cgroups.CgroupNamePrefix + string(name)} {
			if path := paths[controller]; path != "" {
				return below(controller, path)
			}
		}
		return "", cgroup1.ErrControllerNotActive
	})
	if err != nil {
		return nil, err
	}
	return func() (any, error) { return group.Stat(cgroup1.IgnoreNotExist) }, nil
}

// below returns path relative to the root of the controller's hierarchy.
func below(controller, path string) (string, error) {
	mountpoint, err := cgroups.FindCgroupMountpoint("", controller)
	if err != nil {
		return "", err
	}
	rest, err := filepath.Rel(mountpoint, path)
	if err != nil {
		return "", err
	}
	return "/" + rest, nil
}

func (c *Cgroup) loadV2() (func() (any, error), error) {
	group, err := cgroup2.Load(strings.TrimPrefix(c.manager.Path(""), unifiedMountpoint))
	if err != nil {
		return nil, err
	}
	return func() (any, error) { return group.Stat() }, nil
}

// MemoryLimit returns the lowest memory limit in bytes that applies to the cgroup:
// its own or that of a cgroup above it, such as the pod's. It returns false when
// there is no limit, or none can be read.
func (c *Cgroup) MemoryLimit() (uint64, bool) {
	if !c.unified {
		// The kernel writes "no limit" as the highest number of whole pages.
		limit, err := fscommon.GetValueByKey(c.manager.Path("memory"), "memory.stat", "hierarchical_memory_limit")
		return limit, err == nil && limit < math.MaxInt64&^(1<<16-1)
	}
	lowest, found := uint64(math.MaxUint64), false
	for dir := c.manager.Path(""); strings.HasPrefix(dir, unifiedMountpoint+"/"); dir = filepath.Dir(dir) {
		text, err := cgroups.ReadFile(dir, "memory.max")
		if err != nil {
			continue // the controller is not enabled for this cgroup
		}
		if limit, err := strconv.ParseUint(strings.TrimSpace(text), 10, 64); err == nil {
			lowest, found = min(lowest, limit), true
		}
	}
	return lowest, found
}

// Package cgroup puts a container's processes into a cgroup of their own with
// the limits of an OCI runtime spec, and freezes, kills, measures and removes
// them there. It is a thin layer over github.com/opencontainers/cgroups, runc's
// library, for v1 and v2, with and without systemd, that refuses by name what the
// library would leave out; statistics come from github.com/containerd/cgroups,
// as those of containerd's own shim do.
//
// Package cgroup starts no process, keeps nothing on disk, and never touches a
// process or a limit outside of the container's cgroup.
package cgroup

import (
	"fmt"
	"io/fs"
	"maps"
	"reflect"
	"sync"

	"github.com/opencontainers/cgroups"
	_ "github.com/opencontainers/cgroups/devices" // device rules are refused without it
	"github.com/opencontainers/cgroups/manager"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// Cgroup is the cgroup of one container: on v1 a directory per controller, on v2
// one. All methods may be called at the same time.
type Cgroup struct {
	manager cgroups.Manager
	unified bool

	mu     sync.Mutex // guards what follows and the manager's configuration
	config *cgroups.Cgroup
	made   bool // some of it may exist
	ready  bool // all of it exists, with its limits
	stat   func() (any, error)

	killsBefore uint64 // what the slice had counted when the scope began
}

// fromConfig returns the cgroup that config, made by configure, describes. It makes
// nothing yet: Add does. The error names the field of linux.resources for which
// the node has no controller.
func fromConfig(config *cgroups.Cgroup) (*Cgroup, error) {
	m, err := manager.New(config)
	if err != nil {
		return nil, fmt.Errorf("cgroup: %w", err)
	}
	has, err := controllers(m)
	if err != nil {
		return nil, fmt.Errorf("cgroup: %w", err)
	}
	if err := checkControllers(config.Resources, has); err != nil {
		return nil, err
	}
	return &Cgroup{manager: m, unified: cgroups.IsCgroup2UnifiedMode(), config: config}, nil
}

// New returns the cgroup of container id with spec. It comes into being with the first process
// that is added to it.
func New(id string, spec *specs.Spec, systemd bool) (*Cgroup, error) {
	config, err := configure(id, spec, systemd)
	if err != nil {
		return nil, err
	}
	c, err := fromConfig(config)
	if err != nil {
		return nil, fmt.Errorf("create cgroup: %w", err)
	}
	return c, nil
}

// Load returns the existing cgroup of container id with spec, for one whose shim
// is gone. The limits in spec are not looked at. The error is fs.ErrNotExist when
// there is no such cgroup.
//
// A cgroupsPath that is relative or empty leads to the same cgroup only for a
// caller that is in the same cgroup as the one that made it.
func Load(id string, spec *specs.Spec, systemd bool) (*Cgroup, error) {
	config, err := place(id, spec, systemd)
	if err != nil {
		return nil, err
	}
	m, err := manager.New(config)
	if err != nil {
		return nil, fmt.Errorf("cgroup: %w", err)
	}
	c := &Cgroup{manager: m, unified: cgroups.IsCgroup2UnifiedMode(), config: config, made: true, ready: true}
	for _, path := range c.Paths() {
		if cgroups.PathExists(path) {
			return c, nil
		}
	}
	return nil, fmt.Errorf("cgroup of %s: %w", id, fs.ErrNotExist)
}

// Add moves process pid into the cgroup. The first call makes the cgroup and sets
// its limits, so they hold when it returns: the process should do nothing of
// consequence before. It fails when the cgroup exists already and is not empty.
// After an error of the first call the process may be in the cgroup: Destroy kills
// it and removes what was made.
func (c *Cgroup) Add(pid int) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ready {
		if err := c.manager.AddPid("", pid); err != nil {
			return fmt.Errorf("add process %d to cgroup %s: %w", pid, c.name(), err)
		}
		return nil
	}
	if err := c.unused(); err != nil {
		return err
	}
	c.made = true
	if err := c.manager.Apply(pid); err != nil {
		return fmt.Errorf("make cgroup %s for process %d: %w", c.name(), pid, named(err))
	}
	if err := c.set(c.config.Resources); err != nil {
		return err
	}
	if c.unified && c.config.Systemd {
		// A slice that was made just now without the memory controller counts
		// nothing; then there is nothing to subtract.
		c.killsBefore, _ = c.killsInSlice()
	}
	c.ready = true
	return nil
}

// unused refuses a cgroup in which somebody is: two containers in one would share
// their limits and die together.
func (c *Cgroup) unused() error {
	if !c.manager.Exists() {
		return nil
	}
	pids, err := c.Pids()
	if err != nil {
		return err
	}
	if len(pids) > 0 {
		return fmt.Errorf("cgroup %s is in use by process %d: choose another linux.cgroupsPath", c.name(), pids[0])
	}
	return nil
}

// set has the manager set r, which on v2 makes it the manager's configuration.
func (c *Cgroup) set(r *cgroups.Resources) error {
	err := checkFiles(r, c.manager)
	if err == nil {
		err = named(c.manager.Set(r))
	}
	if err != nil {
		return fmt.Errorf("limit cgroup %s: %w", c.name(), err)
	}
	return nil
}

// Update changes the limits that r sets and leaves the others alone; zero values
// are "not set", -1 lifts a limit. The error names the field. When several limits
// change, the error can come after some have.
//
// Devices cannot be changed: containerd hands over all of the container's
// resources, so those it has are accepted. A memory limit above the current total
// of memory and swap raises that total too, or the kernel would refuse it.
func (c *Cgroup) Update(r *specs.LinuxResources) error {
	change, err := resources(r, c.unified)
	if err != nil {
		return err
	}
	has, err := controllers(c.manager)
	if err != nil {
		return err
	}
	if err := checkControllers(change, has); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	current := *c.config.Resources
	if err := merge(change, &current); err != nil {
		return err
	}
	if err := checkSwap(change); err != nil {
		return err
	}
	err = c.set(change)
	if err != nil {
		// The v2 manager may have taken the change for its configuration.
		c.config.Resources = &current
		return err
	}
	remember(&current, change)
	c.config.Resources = &current
	return nil
}

// merge completes change by what belongs together with it in current.
func merge(change, current *cgroups.Resources) error {
	if len(change.Devices) > 0 && !reflect.DeepEqual(change.Devices, current.Devices[:min(len(change.Devices), len(current.Devices))]) {
		return refused("devices", "cannot be changed while the container runs")
	}
	change.Devices, change.SkipDevices = nil, true

	switch total := current.MemorySwap; {
	case change.Memory > 0 && change.MemorySwap == 0 && total > 0 && change.Memory > total:
		change.MemorySwap = change.Memory
	case change.MemorySwap > 0 && change.Memory == 0:
		change.Memory = current.Memory
	}
	if change.Memory != 0 || change.MemorySwap != 0 {
		change.MemoryCheckBeforeUpdate = change.MemoryCheckBeforeUpdate || current.MemoryCheckBeforeUpdate
	}
	// v2 and systemd have quota and period in one file.
	if change.CpuQuota != 0 && change.CpuPeriod == 0 {
		change.CpuPeriod = current.CpuPeriod
	}
	if change.CpuPeriod != 0 && change.CpuQuota == 0 {
		change.CpuQuota = current.CpuQuota
	}
	return nil
}

// remember takes over into current what later changes are completed with.
func remember(current, change *cgroups.Resources) {
	for _, pair := range []struct{ current, change *int64 }{
		{&current.Memory, &change.Memory},
		{&current.MemorySwap, &change.MemorySwap},
		{&current.CpuQuota, &change.CpuQuota},
	} {
		if *pair.change != 0 {
			*pair.current = *pair.change
		}
	}
	if change.CpuPeriod != 0 {
		current.CpuPeriod = change.CpuPeriod
	}
}

// Pids returns the processes in the cgroup and in cgroups below it, in no order.
// Those that have ended but are not waited for yet are not among them. A cgroup
// that is gone has none.
func (c *Cgroup) Pids() ([]int, error) {
	pids, err := c.manager.GetAllPids()
	if err := ignoreGone(err); err != nil {
		return nil, fmt.Errorf("processes of cgroup %s: %w", c.name(), err)
	}
	return pids, nil
}

// Paths returns the cgroup's directories by controller; on v2 there is one, under
// "". On a v1 host that has v2 mounted beside (hybrid), "" is the one there.
func (c *Cgroup) Paths() map[string]string {
	return maps.Clone(c.manager.GetPaths())
}

// Destroy removes the cgroup and everything in it. Processes are killed first. It
// does nothing when the cgroup is gone, or was never made.
func (c *Cgroup) Destroy() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.made {
		return nil
	}
	pids, err := c.Pids()
	if err != nil {
		return err
	}
	if len(pids) > 0 {
		if err := c.Kill(); err != nil {
			return err
		}
	}
	if err := c.manager.Destroy(); err != nil {
		return fmt.Errorf("remove cgroup %s: %w", c.name(), err)
	}
	return nil
}

// name tells the cgroup from others in messages.
func (c *Cgroup) name() string {
	if path := c.manager.Path("devices"); path != "" {
		return path
	}
	return c.config.Name
}

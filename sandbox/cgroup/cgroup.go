// Package cgroup puts a container's processes into a cgroup of their own with
// the limits of an OCI runtime spec. It also freezes, kills and measures them, and
// removes the cgroup. It is a thin layer over github.com/opencontainers/cgroups,
// runc's library, for v1 and v2, with and without systemd. A field that the library
// would silently ignore is refused by name. Statistics come from
// github.com/containerd/cgroups, like those of containerd's own shim.
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

	mu     sync.Mutex // guards the fields below and the manager's configuration
	config *cgroups.Cgroup
	made   bool // a part of the cgroup may exist
	ready  bool // the cgroup exists, with its limits
	stat   func() (any, error)

	killsBefore uint64 // the slice's count of kills when the scope began
}

// fromConfig returns the cgroup that config, made by configure, describes. Only Add
// makes it in the kernel. The error names the field of linux.resources for which
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

// New returns the cgroup of container id with spec. The first call of Add makes it in the kernel.
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

// Load returns the existing cgroup of container id with spec, for a container whose
// shim is gone. It ignores the limits in spec. The error is fs.ErrNotExist when
// there is no such cgroup.
//
// With a relative or empty cgroupsPath, Load finds the cgroup only if the caller is
// in the same cgroup as the process that made it.
func Load(id string, spec *specs.Spec, systemd bool) (*Cgroup, error) {
	config, err := located(id, spec, systemd)
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
// its limits. They apply from its return on: the process should do no real work
// before. The first call fails when the cgroup exists already and is not empty.
// After such an error the process may be in the cgroup: Destroy kills the process
// and removes what was made.
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
		// The slice may be new and lack the memory controller. It has counted
		// nothing then, and zero is right.
		c.killsBefore, _ = c.killsInSlice()
	}
	c.ready = true
	return nil
}

// unused refuses a cgroup that has processes: two containers in one cgroup would
// share their limits, and Kill would kill both.
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

// set calls the manager's Set with r. On v2, r becomes the manager's configuration.
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

// Update changes the limits that r sets and leaves the others unchanged. A zero
// value is "not set", -1 removes a limit. The error names the field. When several
// limits change, some may have changed before the error.
//
// Devices cannot be changed. containerd passes all of the container's resources, so
// device rules that are equal to the current ones are accepted. A memory limit
// above the current total of memory and swap raises that total too: otherwise the
// kernel would refuse the limit.
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
		// The v2 manager may have made the change its configuration.
		c.config.Resources = &current
		return err
	}
	remember(&current, change)
	c.config.Resources = &current
	return nil
}

// merge adds to change the values of current that must be written with it.
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

// remember copies the values into current that merge needs for later changes.
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
// Zombies are not included. A cgroup that does not exist has no processes.
func (c *Cgroup) Pids() ([]int, error) {
	pids, err := c.manager.GetAllPids()
	if err := ignoreGone(err); err != nil {
		return nil, fmt.Errorf("processes of cgroup %s: %w", c.name(), err)
	}
	return pids, nil
}

// Paths returns the cgroup's directories by controller. On v2 there is one, with
// key "". On a v1 host that has v2 mounted too (hybrid), "" is the directory on v2.
func (c *Cgroup) Paths() map[string]string {
	return maps.Clone(c.manager.GetPaths())
}

// Destroy kills all processes in the cgroup and removes the cgroup and those below
// it. It is a no-op when the cgroup is gone, or was never made.
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

// name returns the cgroup's name for messages.
func (c *Cgroup) name() string {
	if path := c.manager.Path("devices"); path != "" {
		return path
	}
	return c.config.Name
}

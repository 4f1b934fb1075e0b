package cgroup

import (
	"errors"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"

	"github.com/opencontainers/cgroups"
)

// checkControllers refuses limits for which the node has no controller, before
// anything is made. has reports whether the node has one of the named controllers;
// a controller can have different names on v2 and v1.
func checkControllers(r *cgroups.Resources, has func(names ...string) bool) error {
	for _, need := range []struct {
		field string
		set   bool
		names []string
	}{
		{"memory", r.Memory != 0 || r.MemorySwap != 0 || r.MemoryReservation != 0 || r.OomKillDisable || r.MemorySwappiness != nil, []string{"memory"}},
		{"cpu", r.CpuShares != 0 || r.CpuQuota != 0 || r.CpuPeriod != 0 || r.CpuBurst != nil || r.CPUIdle != nil ||
			r.CpuRtRuntime != 0 || r.CpuRtPeriod != 0, []string{"cpu"}},
		{"cpu.cpus", r.CpusetCpus != "", []string{"cpuset"}},
		{"cpu.mems", r.CpusetMems != "", []string{"cpuset"}},
		{"pids", r.PidsLimit != nil, []string{"pids"}},
		{"blockIO", r.BlkioWeight != 0 || r.BlkioLeafWeight != 0 || len(r.BlkioWeightDevice) > 0 ||
			len(r.BlkioThrottleReadBpsDevice) > 0 || len(r.BlkioThrottleWriteBpsDevice) > 0 ||
			len(r.BlkioThrottleReadIOPSDevice) > 0 || len(r.BlkioThrottleWriteIOPSDevice) > 0, []string{"io", "blkio"}},
		{"hugepageLimits", len(r.HugetlbLimit) > 0, []string{"hugetlb"}},
		{"network.classID", r.NetClsClassid != 0, []string{"net_cls"}},
		{"network.priorities", len(r.NetPrioIfpriomap) > 0, []string{"net_prio"}},
		{"rdma", len(r.Rdma) > 0, []string{"rdma"}},
	} {
		if need.set && !has(need.names...) {
			return refused(need.field, "the node's kernel offers no cgroup controller for it")
		}
	}
	return nil
}

// controllers returns the function has for checkControllers.
func controllers(m cgroups.Manager) (func(...string) bool, error) {
	if !cgroups.IsCgroup2UnifiedMode() {
		return func(names ...string) bool {
			return slices.ContainsFunc(names, func(name string) bool { return m.Path(name) != "" })
		}, nil
	}
	available, err := cgroups.GetAllSubsystems()
	if err != nil {
		return nil, err
	}
	return func(names ...string) bool {
		return slices.ContainsFunc(names, func(name string) bool { return slices.Contains(available, name) })
	}, nil
}

// checkFiles refuses limits that the library silently ignores when the kernel
// lacks the file. The cgroup must exist.
func checkFiles(r *cgroups.Resources, m cgroups.Manager) error {
	missing := func(controller, file string) bool {
		return !cgroups.PathExists(filepath.Join(m.Path(controller), file))
	}
	if cgroups.IsCgroup2UnifiedMode() {
		if len(r.BlkioWeightDevice) > 0 && missing("", "io.bfq.weight") {
			return refused("blockIO.weightDevice", "needs the I/O scheduler bfq, which this node does not have")
		}
		return nil
	}
	if value(r.CpuBurst) != 0 && missing("cpu", "cpu.cfs_burst_us") {
		return refused("cpu.burst", "needs Linux 5.14")
	}
	return nil
}

// fields maps the prefix of a cgroup file to the field of linux.resources that is
// written to it. Of two prefixes that match, the longer one comes first.
var fields = []struct{ prefix, field string }{
	{"memory.memsw.", "memory.swap"},
	{"memory.swap.", "memory.swap"},
	{"memory.swappiness", "memory.swappiness"},
	{"memory.oom_control", "memory.disableOOMKiller"},
	{"memory.soft_limit_in_bytes", "memory.reservation"},
	{"memory.low", "memory.reservation"},
	{"memory.", "memory.limit"},
	{"cpu.cfs_burst_us", "cpu.burst"},
	{"cpu.max.burst", "cpu.burst"},
	{"cpu.cfs_period_us", "cpu.period"},
	{"cpu.cfs_quota_us", "cpu.quota"},
	{"cpu.max", "cpu.quota"},
	{"cpu.rt_period_us", "cpu.realtimePeriod"},
	{"cpu.rt_runtime_us", "cpu.realtimeRuntime"},
	{"cpu.shares", "cpu.shares"},
	{"cpu.weight", "cpu.shares"},
	{"cpu.idle", "cpu.idle"},
	{"cpuset.cpus", "cpu.cpus"},
	{"cpuset.mems", "cpu.mems"},
	{"pids.", "pids.limit"},
	{"blkio.leaf_weight", "blockIO.leafWeight"},
	{"blkio.throttle.", "blockIO throttle"},
	{"blkio.", "blockIO.weight"},
	{"io.max", "blockIO throttle"},
	{"io.", "blockIO.weight"},
	{"hugetlb.", "hugepageLimits"},
	{"net_cls.", "network.classID"},
	{"net_prio.", "network.priorities"},
	{"rdma.", "rdma"},
	{"devices.", "devices"},
}

// named adds the field to an error about a cgroup file.
func named(err error) error {
	var path *fs.PathError
	if !errors.As(err, &path) {
		return err
	}
	file := filepath.Base(path.Path)
	for _, f := range fields {
		if strings.HasPrefix(file, f.prefix) {
			return &fieldError{field: f.field, err: err}
		}
	}
	return err
}

type fieldError struct {
	field string
	err   error
}

func (e *fieldError) Error() string { return "linux.resources." + e.field + ": " + e.err.Error() }
func (e *fieldError) Unwrap() error { return e.err }

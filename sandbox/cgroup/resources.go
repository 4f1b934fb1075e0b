package cgroup

import (
	"fmt"
	"maps"

	"github.com/opencontainers/cgroups"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// refused returns the error for a field that is not supported.
func refused(field, why string) error {
	return fmt.Errorf("linux.resources.%s: %s", field, why)
}

const (
	onlyV1 = "exists on cgroup v1 only, and this node has v2"
	onlyV2 = "exists on cgroup v2 only, and this node has v1"
)

// resources translates r, which may be nil, for a node with v2 (unified) or v1. It
// refuses the fields that the library would ignore on that hierarchy. Zero values
// are "not set", as in runc.
func resources(r *specs.LinuxResources, unified bool) (*cgroups.Resources, error) {
	out := &cgroups.Resources{}
	if r == nil {
		return out, nil
	}
	var err error
	if out.Devices, err = deviceRules(r.Devices); err != nil {
		return nil, err
	}
	if err := memory(out, r.Memory, unified); err != nil {
		return nil, err
	}
	if err := cpu(out, r.CPU, unified); err != nil {
		return nil, err
	}
	if r.Pids != nil {
		out.PidsLimit = r.Pids.Limit
	}
	if err := blockIO(out, r.BlockIO, unified); err != nil {
		return nil, err
	}
	for _, limit := range r.HugepageLimits {
		out.HugetlbLimit = append(out.HugetlbLimit, &cgroups.HugepageLimit{Pagesize: limit.Pagesize, Limit: limit.Limit})
	}
	if err := network(out, r.Network, unified); err != nil {
		return nil, err
	}
	for name, limit := range r.Rdma {
		if out.Rdma == nil {
			out.Rdma = make(map[string]cgroups.LinuxRdma, len(r.Rdma))
		}
		out.Rdma[name] = cgroups.LinuxRdma{HcaHandles: limit.HcaHandles, HcaObjects: limit.HcaObjects}
	}
	if len(r.Unified) > 0 {
		if !unified {
			return nil, refused("unified", onlyV2)
		}
		out.Unified = maps.Clone(r.Unified)
	}
	return out, nil
}

func memory(out *cgroups.Resources, m *specs.LinuxMemory, unified bool) error {
	if m == nil {
		return nil
	}
	// The runtime spec has deprecated both. Linux 5.16 and 6.12 ignore or refuse
	// them.
	//lint:ignore SA1019 it must not be dropped silently
	if limited(m.Kernel) {
		return refused("memory.kernel", "kernels no longer limit kernel memory separately")
	}
	if limited(m.KernelTCP) {
		return refused("memory.kernelTCP", "kernels no longer limit kernel memory separately")
	}
	if m.UseHierarchy != nil && !*m.UseHierarchy {
		return refused("memory.useHierarchy", "kernels no longer have cgroups without hierarchy")
	}
	if m.Swappiness != nil && unified {
		return refused("memory.swappiness", onlyV1)
	}
	if m.Swappiness != nil && *m.Swappiness > 100 {
		return refused("memory.swappiness", fmt.Sprintf("%d is above 100", *m.Swappiness))
	}
	out.OomKillDisable = value(m.DisableOOMKiller)
	if out.OomKillDisable && unified {
		return refused("memory.disableOOMKiller", onlyV1)
	}
	out.Memory = value(m.Limit)
	out.MemorySwap = value(m.Swap)
	out.MemoryReservation = value(m.Reservation)
	out.MemorySwappiness = m.Swappiness
	out.MemoryCheckBeforeUpdate = value(m.CheckBeforeUpdate)
	return nil
}

// checkSwap refuses a total of memory and swap that does not fit the memory limit.
// On v1 the library leaves this check to the kernel, which reports only "invalid
// argument".
func checkSwap(r *cgroups.Resources) error {
	if _, err := cgroups.ConvertMemorySwapToCgroupV2Value(r.MemorySwap, r.Memory); err != nil {
		return refused("memory.swap", err.Error())
	}
	return nil
}

func cpu(out *cgroups.Resources, c *specs.LinuxCPU, unified bool) error {
	if c == nil {
		return nil
	}
	out.CpuRtRuntime = value(c.RealtimeRuntime)
	out.CpuRtPeriod = value(c.RealtimePeriod)
	if out.CpuRtRuntime != 0 && unified {
		return refused("cpu.realtimeRuntime", onlyV1)
	}
	if out.CpuRtPeriod != 0 && unified {
		return refused("cpu.realtimePeriod", onlyV1)
	}
	out.CpuShares = value(c.Shares)
	out.CpuWeight = cgroups.ConvertCPUSharesToCgroupV2Value(out.CpuShares)
	out.CpuQuota = value(c.Quota)
	out.CpuPeriod = value(c.Period)
	out.CpuBurst = c.Burst
	out.CPUIdle = c.Idle
	out.CpusetCpus = c.Cpus
	out.CpusetMems = c.Mems
	return nil
}

func blockIO(out *cgroups.Resources, b *specs.LinuxBlockIO, unified bool) error {
	if b == nil {
		return nil
	}
	out.BlkioWeight = value(b.Weight)
	out.BlkioLeafWeight = value(b.LeafWeight)
	if out.BlkioLeafWeight != 0 && unified {
		return refused("blockIO.leafWeight", onlyV1)
	}
	for i, d := range b.WeightDevice {
		if value(d.LeafWeight) != 0 && unified {
			return refused(fmt.Sprintf("blockIO.weightDevice[%d].leafWeight", i), onlyV1)
		}
		out.BlkioWeightDevice = append(out.BlkioWeightDevice,
			cgroups.NewWeightDevice(d.Major, d.Minor, value(d.Weight), value(d.LeafWeight)))
	}
	out.BlkioThrottleReadBpsDevice = throttles(b.ThrottleReadBpsDevice)
	out.BlkioThrottleWriteBpsDevice = throttles(b.ThrottleWriteBpsDevice)
	out.BlkioThrottleReadIOPSDevice = throttles(b.ThrottleReadIOPSDevice)
	out.BlkioThrottleWriteIOPSDevice = throttles(b.ThrottleWriteIOPSDevice)
	return nil
}

func throttles(given []specs.LinuxThrottleDevice) []*cgroups.ThrottleDevice {
	var out []*cgroups.ThrottleDevice
	for _, d := range given {
		out = append(out, cgroups.NewThrottleDevice(d.Major, d.Minor, d.Rate))
	}
	return out
}

func network(out *cgroups.Resources, n *specs.LinuxNetwork, unified bool) error {
	if n == nil {
		return nil
	}
	out.NetClsClassid = value(n.ClassID)
	if out.NetClsClassid != 0 && unified {
		return refused("network.classID", onlyV1)
	}
	if len(n.Priorities) > 0 && unified {
		return refused("network.priorities", onlyV1)
	}
	for _, p := range n.Priorities {
		out.NetPrioIfpriomap = append(out.NetPrioIfpriomap, &cgroups.IfPrioMap{Interface: p.Name, Priority: int64(p.Priority)})
	}
	return nil
}

// limited reports whether limit is set; -1 is "no limit".
func limited(limit *int64) bool {
	return value(limit) != 0 && *limit != -1
}

func value[T any](p *T) T {
	if p == nil {
		var zero T
		return zero
	}
	return *p
}

package cgroup

import (
	"fmt"

	"github.com/opencontainers/cgroups"
)

// Announce prepares the kernel for a move of a process into a cgroup: the Add that
// follows soon is faster. While the kernel moves a process, no other process can
// fork or end. The first move in a while waits 5 to 8 ms for the grace period that
// turns the fast path of fork and exit off (cgroup_threadgroup_rwsem in
// kernel/cgroup/cgroup.c); a move right after it does not wait. Announce moves the
// caller to the cgroup that it is already in, so that this wait can run in parallel
// with other work. Without Announce, Add is only slower.
func Announce() error {
	dir, err := own()
	if err == nil {
		err = cgroups.WriteFile(dir, cgroups.CgroupProcesses, "0")
	}
	if err != nil {
		return fmt.Errorf("announce the use of a cgroup: %w", err)
	}
	return nil
}

// own returns the directory of the caller's own cgroup; on v1, in one of the
// hierarchies.
func own() (string, error) {
	if !cgroups.IsCgroup2UnifiedMode() {
		return cgroups.GetOwnCgroupPath("devices")
	}
	paths, err := cgroups.ParseCgroupFile("/proc/self/cgroup")
	return unifiedMountpoint + paths[""], err
}

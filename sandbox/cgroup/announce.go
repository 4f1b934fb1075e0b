package cgroup

import (
	"fmt"

	"github.com/opencontainers/cgroups"
)

// Announce has the kernel get ready for a process to be moved into a cgroup by
// Add a little later, and returns when it is. To move a process, the kernel keeps
// all others from forking and ending; the first move in a while waits 5 to 8 ms
// for the grace period that turns their fast path off
// (cgroup_threadgroup_rwsem in kernel/cgroup/cgroup.c), those right after it do
// not. Announce moves the caller to where it is already, so that this wait passes
// beside other work. Without it Add is slower, and nothing else.
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

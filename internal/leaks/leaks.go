// Package leaks compares two snapshots of a machine, before and after a test, and waits for the kernel to
// release what is removed. Its users decide what a snapshot holds. No shipped binary imports it.
package leaks

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/wasmshim/containerd-shim-wasm/internal/poll"
)

// Snapshot is a list of things that exist at one moment, one line each.
type Snapshot map[string]struct{}

// Add notes a thing.
func (s Snapshot) Add(format string, args ...any) { s[fmt.Sprintf(format, args...)] = struct{}{} }

// Since returns the lines of s that are not in before, sorted.
func (s Snapshot) Since(before Snapshot) []string {
	var fresh []string
	for thing := range s {
		if _, known := before[thing]; !known {
			fresh = append(fresh, thing)
		}
	}
	slices.Sort(fresh)
	return fresh
}

// Wait returns what look finds and before does not have, sorted. It looks again until nothing is left or
// the context's time is over, because much is cleaned up after the last reply.
func Wait(ctx context.Context, before Snapshot, look func() (Snapshot, error)) ([]string, error) {
	var left []string
	err := poll.Until(ctx, func() (bool, error) {
		now, err := look()
		if err != nil {
			return false, err
		}
		left = now.Since(before)
		return len(left) == 0, nil
	})
	if errors.Is(err, context.DeadlineExceeded) {
		return left, nil
	}
	return left, err
}

// RemoveCgroups removes the cgroups that list returns, which has parents before their children. A cgroup is
// busy until the kernel has released its last process.
func RemoveCgroups(ctx context.Context, list func() ([]string, error)) error {
	return poll.Until(ctx, func() (bool, error) {
		cgroups, err := list()
		if err != nil {
			return false, err
		}
		busy := false
		for _, cgroup := range slices.Backward(cgroups) {
			err := unix.Rmdir(cgroup)
			busy = busy || err == unix.EBUSY
			if err != nil && err != unix.EBUSY && err != unix.ENOENT {
				return false, &fs.PathError{Op: "rmdir", Path: cgroup, Err: err}
			}
		}
		return !busy, nil
	})
}

package sandbox

import (
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"

	"golang.org/x/sys/unix"
)

// A thread that is about to fork has its own descriptor table, in which it closes every
// descriptor that the child must not have. Close-on-exec would leave all of them open in the
// child until execve, and other processes may inspect it before that: a descriptor of
// a directory of the host would lead out of the sandbox (CVE-2016-9962, CVE-2024-21626).
//
// From then on the thread must open and close by system calls only. A file that package os
// opens there would be closed in another table, the daemon's.
// See RATIONALE.md, "Why does the launching thread have a descriptor table of its own?"

// ownDescriptors gives the calling thread its own table.
func ownDescriptors() error {
	if err := unix.Unshare(unix.CLONE_FILES); err != nil {
		return fmt.Errorf("unshare descriptors: %w", err)
	}
	return nil
}

// keepDescriptors leaves only copies of fds and the descriptors of Go's runtime in the
// calling thread's table. It returns the copies, which are numbered from least on.
func keepDescriptors(fds []int, least int, runtime []int) ([]int, error) {
	copies := make([]int, 0, len(fds))
	for _, fd := range fds {
		fd, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, least)
		if err != nil {
			return nil, fmt.Errorf("copy a descriptor for the worker: %w", err)
		}
		copies = append(copies, fd)
	}
	kept := slices.Concat(copies, runtime, []int{math.MaxInt32})
	slices.Sort(kept)
	from := 0
	for _, fd := range kept {
		if from < fd {
			if err := unix.CloseRange(uint(from), uint(fd-1), 0); err != nil {
				return nil, fmt.Errorf("close descriptors: %w", err)
			}
		}
		from = fd + 1
	}
	return copies, nil
}

// poller caches the descriptors of Go's runtime: they stay the same for the life of the
// process.
var poller struct {
	sync.Mutex
	fds []int
}

// runtimeDescriptors returns the descriptors of the poller of Go's runtime. Any thread
// may use them at any time, to wake another one: the process dies if that fails.
func runtimeDescriptors() ([]int, error) {
	poller.Lock()
	defer poller.Unlock()
	if poller.fds != nil {
		return poller.fds, nil
	}
	// The first pollable file creates the poller.
	r, w, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("create a pipe: %w", err)
	}
	defer r.Close()
	defer w.Close()
	found, err := descriptorsOf("anon_inode:[eventpoll]", "anon_inode:[eventfd]")
	if err != nil {
		return nil, fmt.Errorf("look for the runtime's descriptors: %w", err)
	}
	if len(found) < 2 {
		return nil, fmt.Errorf("look for the runtime's descriptors: %s has %v", ownFiles, found)
	}
	poller.fds = found
	return found, nil
}

// ownFiles lists the descriptors of the process (proc_pid_fd(5)).
const ownFiles = "/proc/self/fd"

// descriptorsOf returns the process's descriptors of the given kinds of file.
func descriptorsOf(kinds ...string) ([]int, error) {
	entries, err := os.ReadDir(ownFiles)
	if err != nil {
		return nil, err
	}
	var found []int
	for _, entry := range entries {
		kind, err := os.Readlink(filepath.Join(ownFiles, entry.Name()))
		if err != nil || !slices.Contains(kinds, kind) {
			continue // or closed meanwhile
		}
		fd, err := strconv.Atoi(entry.Name())
		if err != nil {
			return nil, err
		}
		found = append(found, fd)
	}
	return found, nil
}

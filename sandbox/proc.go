package sandbox

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// emulated are the files below /proc that may be mounted on: the files that lxcfs emulates for
// a container, and the rest of runc's list (checkProcMount in libcontainer/rootfs_linux.go).
var emulated = []string{
	"/proc/cpuinfo", "/proc/diskstats", "/proc/meminfo", "/proc/stat", "/proc/swaps", "/proc/uptime",
	"/proc/loadavg", "/proc/slabinfo", "/proc/sys/kernel/ns_last_pid", "/proc/sys/crypto/fips_enabled",
}

// emptyProc stands for /proc in a Wasm container: an empty directory, read-only once
// the other mounts have their mount points (mountAll). The real one would hand the guest its own process:
// through /proc/self/mem it could write machine code into the worker that runs it.
func emptyProc() (int, error) {
	return newFilesystem("tmpfs", "proc", mountOptions{
		set:  unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV | unix.MOUNT_ATTR_NOEXEC,
		data: []string{"mode=0555", "size=4k"},
	})
}

// checkProc refuses a mount, not yet attached, that would take the place of /proc or of something in it, as
// runc does: a program that trusts /proc trusts all of it. at is the mount point's path without links.
func checkProc(at string, mount int, fstype string) error {
	switch {
	case at == "/proc":
		return checkIsProc(mount, fstype)
	case strings.HasPrefix(at, "/proc/") && !slices.Contains(emulated, at):
		return fmt.Errorf("it is inside /proc, where only these may be mounted on: %s", strings.Join(emulated, ", "))
	}
	return nil
}

func checkIsProc(mount int, fstype string) error {
	if fstype == "proc" {
		return nil
	}
	var st unix.Statfs_t
	if err := unix.Fstatfs(mount, &st); err != nil {
		return fmt.Errorf("stat mount: %w", err)
	}
	if st.Type != unix.PROC_SUPER_MAGIC {
		return errors.New("nothing but proc may be mounted on /proc")
	}
	return nil
}

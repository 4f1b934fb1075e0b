package sandbox

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// landlockRights are the accesses to files that each version of Landlock's interface
// can deny (landlock(7), "Landlock ABI"). The first version would deny every rename
// from one directory to another, so it is not used.
// See RATIONALE.md, "Why does the launch take capabilities and files?"
var landlockRights = []struct {
	since int
	files uint64
}{
	{2, unix.LANDLOCK_ACCESS_FS_EXECUTE | unix.LANDLOCK_ACCESS_FS_WRITE_FILE | unix.LANDLOCK_ACCESS_FS_READ_FILE |
		unix.LANDLOCK_ACCESS_FS_READ_DIR | unix.LANDLOCK_ACCESS_FS_REMOVE_DIR | unix.LANDLOCK_ACCESS_FS_REMOVE_FILE |
		unix.LANDLOCK_ACCESS_FS_MAKE_CHAR | unix.LANDLOCK_ACCESS_FS_MAKE_DIR | unix.LANDLOCK_ACCESS_FS_MAKE_REG |
		unix.LANDLOCK_ACCESS_FS_MAKE_SOCK | unix.LANDLOCK_ACCESS_FS_MAKE_FIFO | unix.LANDLOCK_ACCESS_FS_MAKE_BLOCK |
		unix.LANDLOCK_ACCESS_FS_MAKE_SYM | unix.LANDLOCK_ACCESS_FS_REFER},
	{3, unix.LANDLOCK_ACCESS_FS_TRUNCATE},
	{5, unix.LANDLOCK_ACCESS_FS_IOCTL_DEV},
}

// First versions of the interface that can deny TCP and abstract Unix sockets.
const (
	landlockNet   = 4
	landlockScope = 6
)

// restrictFiles denies the thread, and the worker it will fork, every file outside of
// its root, every program but the worker, and the network. It denies a worker without a container
// (the preparer) every file but its program. A process under Landlock also cannot
// trace a process without it (ptrace(2)).
//
// It is a no-op where the kernel has no Landlock, or has it switched off: this is a
// second wall behind namespaces and, in the worker, a list of system calls. It runs when
// the root is complete, because nothing can be mounted afterwards, and before the
// credentials change, so that the seccomp profile need not allow the calls.
func (s *Sandbox) restrictFiles() error {
	version := landlockVersion()
	if version < landlockRights[0].since {
		return nil
	}
	attr := landlockAttr(version)
	ruleset, _, errno := unix.RawSyscall(unix.SYS_LANDLOCK_CREATE_RULESET, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr), 0)
	if errno != 0 {
		return fmt.Errorf("create a Landlock ruleset: %w", errno)
	}
	defer unix.Close(int(ruleset))
	const program = unix.LANDLOCK_ACCESS_FS_EXECUTE | unix.LANDLOCK_ACCESS_FS_READ_FILE
	if err := allowBeneath(int(ruleset), workerPath, program); err != nil {
		return err
	}
	if s.root >= 0 {
		if err := allowBeneath(int(ruleset), "/", attr.Access_fs&^unix.LANDLOCK_ACCESS_FS_EXECUTE); err != nil {
			return err
		}
	}
	if _, _, errno := unix.RawSyscall(unix.SYS_LANDLOCK_RESTRICT_SELF, ruleset, 0, 0); errno != 0 {
		return fmt.Errorf("restrict the worker by Landlock: %w", errno)
	}
	return nil
}

// landlockVersion returns the version of the kernel's interface, 0 if it has none.
func landlockVersion() int {
	version, _, errno := unix.RawSyscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, unix.LANDLOCK_CREATE_RULESET_VERSION)
	if errno != 0 {
		return 0
	}
	return int(version)
}

// landlockAttr returns everything that a version of the interface can deny.
func landlockAttr(version int) unix.LandlockRulesetAttr {
	var attr unix.LandlockRulesetAttr
	for _, r := range landlockRights {
		if version >= r.since {
			attr.Access_fs |= r.files
		}
	}
	if version >= landlockNet {
		attr.Access_net = unix.LANDLOCK_ACCESS_NET_BIND_TCP | unix.LANDLOCK_ACCESS_NET_CONNECT_TCP
	}
	if version >= landlockScope {
		attr.Scoped = unix.LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET
	}
	return attr
}

func allowBeneath(ruleset int, path string, rights uint64) error {
	fd, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return pathError("open", path, err)
	}
	defer unix.Close(fd)
	rule := unix.LandlockPathBeneathAttr{Allowed_access: rights, Parent_fd: int32(fd)}
	_, _, errno := unix.RawSyscall6(unix.SYS_LANDLOCK_ADD_RULE,
		uintptr(ruleset), unix.LANDLOCK_RULE_PATH_BENEATH, uintptr(unsafe.Pointer(&rule)), 0, 0, 0)
	if errno != 0 {
		return pathError("allow by Landlock", path, errno)
	}
	return nil
}

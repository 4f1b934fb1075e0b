package doctor

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// kernel answers for the running kernel, or for one of a test.
type kernel interface {
	// has reports whether the kernel knows a system call, and lets us use it.
	has(call systemCall) error
}

// systemCall is a system call that the launch of a sandbox needs.
type systemCall struct {
	name  string
	since string // the first Linux that has it
	try   func() error
}

// systemCalls are tried with arguments that no kernel accepts: one that knows the call
// says EBADF, EINVAL or EFAULT, one that does not ENOSYS.
var systemCalls = []systemCall{
	{"close_range", "5.9", func() error { return unix.CloseRange(1, 0, 0) }},
	{"fsopen", "5.2", func() error { return use(unix.Fsopen("", 0x80000000)) }},
	{"mount_setattr", "5.12", func() error { return unix.MountSetattr(-1, "", 0x80000000, &unix.MountAttr{}) }},
	{"move_mount", "5.2", func() error { return unix.MoveMount(-1, "", -1, "", -1) }},
	{"open_tree", "5.2", func() error { return use(unix.OpenTree(-1, "", 0x40000000)) }},
	{"openat2", "5.6", func() error { return use(unix.Openat2(-1, "", &unix.OpenHow{Flags: 1 << 62})) }},
	{"pidfd_open", "5.3", func() error { return use(unix.PidfdOpen(-1, 0)) }},
	{"pidfd_send_signal", "5.1", func() error { return unix.PidfdSendSignal(-1, 0, nil, 0) }},
}

func use(_ int, err error) error { return err }

// running is the kernel that runs.
type running struct{}

func (running) has(call systemCall) error {
	err := call.try()
	if errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EPERM) {
		return err
	}
	return nil
}

func (n *node) release() string {
	release, err := n.read("/proc/sys/kernel/osrelease")
	if err != nil {
		return "an unknown kernel"
	}
	return "Linux " + strings.TrimSpace(release)
}

func checkSystemCalls(_ context.Context, n *node) Result {
	var missing []string
	for _, call := range systemCalls {
		if err := n.kernel.has(call); err != nil {
			missing = append(missing, fmt.Sprintf("%s (%v, Linux %s has it)", call.name, err, call.since))
		}
	}
	if len(missing) > 0 {
		return wrong(fmt.Sprintf("%s lacks %s", n.release(), strings.Join(missing, ", ")),
			"upgrade to Linux 5.12 or later; if it is later, allow these calls to containerd's service")
	}
	return ok(n.release())
}

// checkSeccomp reads which actions the kernel has for a filtered call (seccomp(2), /proc interfaces).
func checkSeccomp(_ context.Context, n *node) Result {
	actions, err := n.read("/proc/sys/kernel/seccomp/actions_avail")
	if err != nil {
		return wrong("the kernel has no seccomp filters", "use a kernel with CONFIG_SECCOMP_FILTER: workers confine themselves by it, and without it no Wasm container starts")
	}
	return ok(strings.TrimSpace(actions))
}

// landlock fails if the kernel lacks the version of Landlock's interface that a launch uses, or has it switched off.
var landlock = systemCall{"landlock_create_ruleset", "5.19", func() error {
	version, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, unix.LANDLOCK_CREATE_RULESET_VERSION)
	if errno != 0 || version < 2 {
		return unix.ENOSYS
	}
	return nil
}}

func checkLandlock(_ context.Context, n *node) Result {
	if n.kernel.has(landlock) != nil {
		return warn("the kernel has none, or it is switched off",
			"use Linux "+landlock.since+" or later with landlock among lsm= of its command line: workers do without, and have one wall less")
	}
	return ok("the kernel has it")
}

func checkNamespaces(_ context.Context, n *node) Result {
	var missing []string
	kinds := []string{"cgroup", "ipc", "mnt", "net", "pid", "uts"}
	for _, kind := range kinds {
		if _, err := os.Lstat(n.path("/proc/self/ns/" + kind)); err != nil {
			missing = append(missing, kind)
		}
	}
	if len(missing) > 0 {
		return wrong("the kernel has no namespaces of kind "+strings.Join(missing, ", "), "use a kernel that has them (CONFIG_NAMESPACES and its kinds)")
	}
	return ok(strings.Join(kinds, ", "))
}

func checkOverlay(_ context.Context, n *node) Result {
	types, err := n.read("/proc/filesystems")
	if err != nil {
		return unknown("file systems of the kernel", "mount /proc")
	}
	for line := range strings.Lines(types) {
		if strings.TrimSpace(strings.TrimPrefix(line, "nodev")) == "overlay" {
			return ok("the kernel has it")
		}
	}
	return warn("the kernel has not loaded it", "modprobe overlay, or another snapshotter in containerd's configuration")
}

func checkFUSE(_ context.Context, n *node) Result {
	if _, err := os.Stat(n.path("/dev/fuse")); err != nil {
		return warn("no /dev/fuse", "modprobe fuse: nothing needs it yet, volumes of artifacts will")
	}
	return ok("/dev/fuse")
}

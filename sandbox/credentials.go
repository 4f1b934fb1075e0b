package sandbox

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"unsafe"

	"github.com/moby/sys/capability"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/wasmshim/containerd-shim-wasm/internal/hide"
)

// The calls below act on the calling thread alone. The functions of package
// syscall with the same names change every thread of the process, so they are
// never used here.

// hidden is locked for writing while the process may be dumpable. When a thread changes its
// credentials, the kernel sets the dumpable flag of the memory of all threads to the sysctl
// fs.suid_dumpable, which may be 1 (commit_creds in the kernel's kernel/cred.c). A child inherits
// the flag, and a process in its pid namespace could trace it and open its descriptors before
// it executes its program.
var hidden sync.RWMutex

// ownKeyring gives the thread a session keyring of its own, as runc does, instead of the
// daemon's, which all of root's processes may share (session-keyring(7)).
func ownKeyring() error {
	_, err := unix.KeyctlInt(unix.KEYCTL_JOIN_SESSION_KEYRING, 0, 0, 0, 0)
	if err != nil && !errors.Is(err, unix.ENOSYS) { // a kernel without keys
		return fmt.Errorf("create session keyring: %w", err)
	}
	return nil
}

// setCredentials changes the thread from the daemon's root to
// process.user and process.capabilities. The order is that of
// runc's libcontainer: the bounding set first (it needs CAP_SETPCAP), then the
// ids (CAP_SETUID, CAP_SETGID) with the permitted set kept across the change,
// then the other sets, ambient last because it must be a subset of them.
func setCredentials(process *specs.Process) error {
	caps, err := capabilities(process.Capabilities)
	if err != nil {
		return err
	}
	hidden.Lock()
	defer hidden.Unlock()
	return errors.Join(changeCredentials(process.User, caps), hide.Process())
}

func changeCredentials(user specs.User, caps capability.Capabilities) error {
	if err := caps.Apply(capability.BOUNDING); err != nil {
		return fmt.Errorf("set process.capabilities.bounding: %w", err)
	}
	if err := setUser(user); err != nil {
		return err
	}
	if err := caps.Apply(capability.CAPS); err != nil {
		return fmt.Errorf("set process.capabilities: %w", err)
	}
	if err := caps.Apply(capability.AMBIENT); err != nil {
		return fmt.Errorf("set process.capabilities.ambient: %w", err)
	}
	return nil
}

func setUser(user specs.User) error {
	if err := prctl(unix.PR_SET_KEEPCAPS, 1); err != nil {
		return fmt.Errorf("keep capabilities over the change of user: %w", err)
	}
	if err := setgroups(user.AdditionalGids); err != nil {
		return fmt.Errorf("set process.user.additionalGids: %w", err)
	}
	if err := setThreadID(unix.SYS_SETRESGID, user.GID); err != nil {
		return fmt.Errorf("set process.user.gid %d: %w", user.GID, err)
	}
	if err := setThreadID(unix.SYS_SETRESUID, user.UID); err != nil {
		return fmt.Errorf("set process.user.uid %d: %w", user.UID, err)
	}
	if err := prctl(unix.PR_SET_KEEPCAPS, 0); err != nil {
		return fmt.Errorf("drop capabilities at exec: %w", err)
	}
	return nil
}

func setThreadID(call uintptr, id uint32) error {
	if _, _, errno := unix.RawSyscall(call, uintptr(id), uintptr(id), uintptr(id)); errno != 0 {
		return errno
	}
	return nil
}

func setgroups(gids []uint32) error {
	var first unsafe.Pointer
	if len(gids) > 0 {
		first = unsafe.Pointer(&gids[0])
	}
	if _, _, errno := unix.RawSyscall(unix.SYS_SETGROUPS, uintptr(len(gids)), uintptr(first), 0); errno != 0 {
		return errno
	}
	return nil
}

func prctl(option int, value uintptr) error {
	return unix.Prctl(option, value, 0, 0, 0)
}

// setNoNewPrivs forbids gaining privileges at exec (prctl(2)).
func setNoNewPrivs() error {
	if err := prctl(unix.PR_SET_NO_NEW_PRIVS, 1); err != nil {
		return fmt.Errorf("set process.noNewPrivileges: %w", err)
	}
	return nil
}

// capabilities builds the sets of the specification; a process without
// capabilities in its specification gets none.
func capabilities(spec *specs.LinuxCapabilities) (capability.Capabilities, error) {
	caps, err := capability.NewPid2(0)
	if err != nil {
		return nil, fmt.Errorf("read capabilities: %w", err)
	}
	caps.Clear(capability.CAPS | capability.BOUNDS | capability.AMBS)
	if spec == nil {
		return caps, nil
	}
	for kind, names := range map[capability.CapType][]string{
		capability.BOUNDING:    spec.Bounding,
		capability.EFFECTIVE:   spec.Effective,
		capability.INHERITABLE: spec.Inheritable,
		capability.PERMITTED:   spec.Permitted,
		capability.AMBIENT:     spec.Ambient,
	} {
		for _, name := range names {
			c, err := capabilityByName(name)
			if err != nil {
				return nil, err
			}
			caps.Set(kind, c)
		}
	}
	return caps, nil
}

func capabilityByName(name string) (capability.Cap, error) {
	for _, c := range capability.ListKnown() {
		if name == "CAP_"+strings.ToUpper(c.String()) {
			return c, nil
		}
	}
	return 0, fmt.Errorf("process.capabilities names %q, which is unknown", name)
}

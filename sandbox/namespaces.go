package sandbox

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

var cloneFlags = map[specs.LinuxNamespaceType]int{
	specs.IPCNamespace:     unix.CLONE_NEWIPC,
	specs.UTSNamespace:     unix.CLONE_NEWUTS,
	specs.NetworkNamespace: unix.CLONE_NEWNET,
	specs.PIDNamespace:     unix.CLONE_NEWPID,
	specs.CgroupNamespace:  unix.CLONE_NEWCGROUP,
}

// enterNamespaces joins or creates the specification's namespaces on the
// calling thread, except two. The mount namespace exists already (newRoot). The
// pid namespace comes last (enterPIDNamespace), because the thread's children are
// born in it: a hook would be process 1 of a new one, in the worker's place, and
// in an existing one the neighbours could reach it.
//
// A new cgroup namespace has the daemon's cgroup as its root: the worker can
// be put into its own cgroup only once it exists. A Wasm container does not see
// the daemon's cgroup: it has no /proc/self/cgroup, and its /sys/fs/cgroup is the
// container's own (see MountCgroups).
func enterNamespaces(namespaces []specs.LinuxNamespace) error {
	created := 0
	for _, ns := range namespaces {
		flag, ok := cloneFlags[ns.Type]
		if !ok || ns.Type == specs.PIDNamespace {
			continue // mount: newRoot; others are refused by Check
		}
		if ns.Path == "" {
			created |= flag
			continue
		}
		if err := joinNamespace(ns.Path, flag); err != nil {
			return fmt.Errorf("join %s namespace: %w", ns.Type, err)
		}
	}
	if created == 0 {
		return nil
	}
	if err := unix.Unshare(created); err != nil {
		return fmt.Errorf("create namespaces: %w", err)
	}
	return nil
}

func joinNamespace(path string, flag int) error {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return pathError("open", path, err)
	}
	defer unix.Close(fd)
	return pathError("setns", path, unix.Setns(fd, flag))
}

// openPIDNamespace opens the pid namespace whose path the specification gives. It returns nil for none.
func openPIDNamespace(namespaces []specs.LinuxNamespace) (*os.File, error) {
	for _, ns := range namespaces {
		if ns.Type != specs.PIDNamespace || ns.Path == "" {
			continue
		}
		file, err := os.Open(ns.Path)
		if err != nil {
			return nil, fmt.Errorf("join pid namespace: %w", err)
		}
		return file, nil
	}
	return nil, nil
}

// enterPIDNamespace decides where the thread's children are born: in the existing pid namespace or,
// if that is nil, in a new one if the specification asks for it.
func enterPIDNamespace(linux *specs.Linux, existing *os.File) error {
	if existing != nil {
		return pathError("setns", existing.Name(), unix.Setns(int(existing.Fd()), unix.CLONE_NEWPID))
	}
	if !CreatesNamespace(linux, specs.PIDNamespace) {
		return nil
	}
	if err := unix.Unshare(unix.CLONE_NEWPID); err != nil {
		return fmt.Errorf("create pid namespace: %w", err)
	}
	return nil
}

// CreatesNamespace reports whether the specification asks for a new namespace
// of that type.
func CreatesNamespace(linux *specs.Linux, kind specs.LinuxNamespaceType) bool {
	return slices.ContainsFunc(linux.Namespaces, func(ns specs.LinuxNamespace) bool {
		return ns.Type == kind && ns.Path == ""
	})
}

func setHostname(spec *specs.Spec) error {
	if spec.Hostname == "" && spec.Domainname == "" {
		return nil
	}
	if !CreatesNamespace(spec.Linux, specs.UTSNamespace) {
		// The pod's sandbox has set it, or it is the host's.
		return nil
	}
	if err := unix.Sethostname([]byte(spec.Hostname)); err != nil {
		return fmt.Errorf("set hostname %q: %w", spec.Hostname, err)
	}
	if spec.Domainname == "" {
		return nil
	}
	if err := unix.Setdomainname([]byte(spec.Domainname)); err != nil {
		return fmt.Errorf("set domainname %q: %w", spec.Domainname, err)
	}
	return nil
}

// bringUpLoopback sets the loopback interface of a new network namespace up,
// as OCI runtimes do.
func bringUpLoopback(linux *specs.Linux) error {
	if !CreatesNamespace(linux, specs.NetworkNamespace) {
		return nil
	}
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open a socket to bring lo up: %w", err)
	}
	defer unix.Close(s)
	request, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	request.SetUint16(unix.IFF_UP)
	if err := unix.IoctlIfreq(s, unix.SIOCSIFFLAGS, request); err != nil {
		return fmt.Errorf("bring lo up: %w", err)
	}
	return nil
}

// setSysctls writes linux.sysctl. Only keys that belong to a namespace the
// container has for itself are allowed, anything else would change the host
// (https://github.com/opencontainers/runtime-spec/blob/main/config-linux.md#sysctl).
func setSysctls(linux *specs.Linux) error {
	for key, value := range linux.Sysctl {
		if err := sysctlAllowed(linux, key); err != nil {
			return err
		}
		path := filepath.Join("/proc/sys", strings.ReplaceAll(key, ".", "/"))
		// /proc/sys shows the namespaces of the thread that opens it.
		if err := os.WriteFile(path, []byte(value), 0o644); err != nil {
			return fmt.Errorf("set linux.sysctl %s: %w", key, err)
		}
	}
	return nil
}

var ipcSysctls = []string{
	"kernel.msgmax", "kernel.msgmnb", "kernel.msgmni", "kernel.sem",
	"kernel.shmall", "kernel.shmmax", "kernel.shmmni", "kernel.shm_rmid_forced",
}

func sysctlAllowed(linux *specs.Linux, key string) error {
	if strings.Contains(key, "/") || strings.Contains(key, "..") {
		return fmt.Errorf("linux.sysctl %q: write the name with single dots", key)
	}
	var kind specs.LinuxNamespaceType
	switch {
	case strings.HasPrefix(key, "net."):
		kind = specs.NetworkNamespace
	case strings.HasPrefix(key, "fs.mqueue.") || slices.Contains(ipcSysctls, key):
		kind = specs.IPCNamespace
	case key == "kernel.domainname":
		kind = specs.UTSNamespace
	default:
		return fmt.Errorf("linux.sysctl %q does not belong to a namespace of the container", key)
	}
	for _, ns := range linux.Namespaces {
		if ns.Type == kind {
			return nil
		}
	}
	return fmt.Errorf("linux.sysctl %q needs a %s namespace of the container's own", key, kind)
}

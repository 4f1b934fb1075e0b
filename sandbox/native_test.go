package sandbox

import (
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// nativelyProbed returns the specification of a container whose root file system contains the probe.
func nativelyProbed(t *testing.T, probe string) *specs.Spec {
	t.Helper()
	spec := probed(t)
	if err := os.Link(probe, filepath.Join(spec.Root.Path, "probe")); err != nil {
		t.Fatal(err)
	}
	return spec
}

// A native program has the container's root as its own and sees nothing of its stand-in or of the host. It has
// no right that its specification does not grant.
func TestNativeLaunchConfines(t *testing.T) {
	probe := buildProbe(t)
	root := []string{"dev", "file", "probe", "proc", "t", "v"}
	inside := report{
		PID: 1, Umask: 0o022, Hostname: "inside", Dir: "/",
		Root: root, AboveRoot: root, Rootfs: root, Volume: []string{"kept"}, Proc: []string{},
		Attempts: map[string]string{
			"write to the root": "EROFS", "write to the worker": "EROFS", "write to the volume": "EROFS", "write to the tmpfs": "allowed", "write to reserved": "EROFS",
			"mount": "EPERM", "remount": "EPERM", "unmount": "EPERM", "change root": "EPERM", "set hostname": "EPERM", "denied by seccomp": "allowed",
			"execute a program": "ENOENT", "bind TCP": "allowed",
		},
	}
	launch := func() Launch {
		return Launch{Native: true, Worker: open(t, probe), Env: []string{"STAND_IN_FOR=/probe"}}
	}
	t.Run("root without capabilities", func(t *testing.T) {
		compare(t, probeBy(t, nativelyProbed(t, probe), launch()), inside)
	})
	t.Run("somebody else", func(t *testing.T) {
		spec, want := nativelyProbed(t, probe), inside
		spec.Process.User = specs.User{UID: 65535, GID: 65535}
		spec.Process.NoNewPrivileges = true
		spec.Linux.Seccomp = &specs.LinuxSeccomp{
			DefaultAction: specs.ActAllow,
			Syscalls:      []specs.LinuxSyscall{{Names: []string{"mkdir", "mkdirat"}, Action: specs.ActErrno}},
		}
		want.UID, want.GID, want.NoNewPrivs, want.Seccomp = 65535, 65535, 1, 2
		want.Attempts = maps.Clone(inside.Attempts)
		want.Attempts["denied by seccomp"] = "EPERM"
		compare(t, probeBy(t, spec, launch()), want)
	})
	// Even with CAP_SYS_ADMIN and CAP_SYS_CHROOT it sees only its root: no other mount is below that.
	t.Run("all-powerful", func(t *testing.T) {
		spec, want := nativelyProbed(t, probe), inside
		all := []string{"CAP_SYS_ADMIN", "CAP_SYS_CHROOT"}
		spec.Process.Capabilities = &specs.LinuxCapabilities{Bounding: all, Permitted: all, Effective: all}
		want.Bounding, want.Permitted, want.Effective = 1<<unix.CAP_SYS_ADMIN|1<<unix.CAP_SYS_CHROOT, 1<<unix.CAP_SYS_ADMIN|1<<unix.CAP_SYS_CHROOT, 1<<unix.CAP_SYS_ADMIN|1<<unix.CAP_SYS_CHROOT
		want.Attempts = maps.Clone(inside.Attempts)
		for _, name := range []string{"mount", "remount", "unmount", "change root", "set hostname"} {
			want.Attempts[name] = "allowed"
		}
		compare(t, probeBy(t, spec, launch()), want)
	})
}

// An exec beside a native program sees and may do what that does, wherever it was started from.
func TestNativeExecConfines(t *testing.T) {
	probe := buildProbe(t)
	spec := nativelyProbed(t, probe)
	launch := Launch{Native: true, Worker: open(t, probe), Env: []string{"STAND_IN_FOR=/probe"}}
	want := probeBy(t, spec, launch)
	want.PID = 2
	input, hold := pipe(t)
	container, err := launchBusybox(t.Context(), t, spec, nil, Launch{Native: true}, input, "cat")
	if err != nil {
		t.Fatal(err)
	}
	defer end(t, container)
	defer hold.Close()
	s, err := Join(container)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	compare(t, probeIn(t, s, spec, launch), want)
}

// CheckNative refuses more than Check. A container that it refuses is run by another runtime.
func TestCheckNative(t *testing.T) {
	good := func() *specs.Spec {
		return &specs.Spec{
			Process: &specs.Process{Args: []string{"/pause"}, ApparmorProfile: "unconfined"},
			Linux:   &specs.Linux{Namespaces: []specs.LinuxNamespace{{Type: specs.MountNamespace}, {Type: specs.NetworkNamespace, Path: "/run/netns/x"}}},
		}
	}
	if err := CheckNative(good()); err != nil {
		t.Error(err)
	}
	for want, change := range map[string]func(*specs.Spec){
		"user":                    func(s *specs.Spec) { s.Linux.Namespaces[1].Type = specs.UserNamespace },
		"hooks":                   func(s *specs.Spec) { s.Hooks = &specs.Hooks{Poststop: []specs.Hook{{}}} },
		"process.apparmorProfile": func(s *specs.Spec) { s.Process.ApparmorProfile = "strict" },
		"process.selinuxLabel":    func(s *specs.Spec) { s.Process.SelinuxLabel = "a:b:c:d" },
		"process.cwd":             func(s *specs.Spec) { s.Process.Cwd = "/tmp" },
		"process.terminal":        func(s *specs.Spec) { s.Process.Terminal = true },
		"mount /c (cgroup)":       func(s *specs.Spec) { s.Mounts = []specs.Mount{{Destination: "/c", Type: "cgroup"}} },
	} {
		spec := good()
		change(spec)
		if err := CheckNative(spec); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v", want, err)
		}
	}
}

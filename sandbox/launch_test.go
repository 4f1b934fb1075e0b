package sandbox

import (
	"encoding/json"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"syscall"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/wasmshim/containerd-shim-wasm/internal/repo"
)

// report is the output of testdata/probe. It has the same fields as the type there.
type report struct {
	PID, UID, GID, Umask        int
	Groups                      []int
	Hostname, Dir               string
	NoNewPrivs, Seccomp         int
	Effective, Permitted        uint64
	Bounding, Ambient           uint64
	Root, AboveRoot             []string
	Rootfs, Volume, Proc        []string
	Attempts                    map[string]string
	Directories, Sockets, Files int
}

func buildProbe(t *testing.T) string {
	t.Helper()
	return buildTestdata(t, "probe")
}

// buildTestdata builds a program of testdata.
func buildTestdata(t *testing.T, name string) string {
	t.Helper()
	path, err := repo.Program("sandbox/testdata/"+name, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// launchProbe runs the probe as a sandbox's worker, and returns its report. Descriptors are open that a
// daemon may have inherited.
func launchProbe(t *testing.T, probe string, spec *specs.Spec, reserved Reserved) report {
	t.Helper()
	return probeBy(t, spec, Launch{Worker: open(t, probe), Reserved: reserved})
}

// probeBy launches a probe for a specification as launch describes, and returns its report.
func probeBy(t *testing.T, spec *specs.Spec, launch Launch) report {
	t.Helper()
	s, err := New(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := s.MountRootfs(nil, spec.Root, ""); err != nil {
		t.Fatal(err)
	}
	return probeIn(t, s, spec, launch)
}

// probeIn launches a probe in a sandbox.
func probeIn(t *testing.T, s *Sandbox, spec *specs.Spec, launch Launch) report {
	t.Helper()
	stray, err := unix.Open("/", unix.O_RDONLY|unix.O_DIRECTORY, 0) // not close-on-exec
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(stray)
	null := open(t, os.DevNull)
	output, input, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer output.Close()
	defer input.Close()
	launch.Spec, launch.Process, launch.Argv = spec, spec.Process, spec.Process.Args
	launch.Files = []*os.File{null, input, input}
	child, err := s.Launch(t.Context(), launch)
	if err != nil {
		t.Fatal(err)
	}
	defer child.Close()
	input.Close()
	var told report
	decodeErr := json.NewDecoder(output).Decode(&told)
	var status syscall.WaitStatus
	if _, err := syscall.Wait4(child.PID, &status, 0, nil); err != nil {
		t.Fatal(err)
	}
	if decodeErr != nil || status.ExitStatus() != 0 {
		t.Fatalf("the probe ended with %#x and %v", status, decodeErr)
	}
	return told
}

func open(t *testing.T, path string) *os.File {
	t.Helper()
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { file.Close() })
	return file
}

// probed returns the specification of a container with a volume, a tmpfs and a root file system of one file.
func probed(t *testing.T) *specs.Spec {
	t.Helper()
	root, volume := t.TempDir(), t.TempDir()
	for _, path := range []string{filepath.Join(root, "file"), filepath.Join(volume, "kept")} {
		if err := os.WriteFile(path, []byte("text"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return &specs.Spec{
		Hostname: "inside",
		Root:     &specs.Root{Path: root, Readonly: true},
		Process:  &specs.Process{Args: []string{"probe"}, Cwd: "/"},
		Mounts: []specs.Mount{
			{Destination: "/proc", Type: "proc", Source: "proc"},
			{Destination: "/v", Type: "bind", Source: volume, Options: []string{"rbind", "ro"}},
			{Destination: "/t", Type: "tmpfs", Source: "tmpfs", Options: []string{"mode=1777"}},
		},
		Linux: &specs.Linux{Namespaces: []specs.LinuxNamespace{
			{Type: specs.MountNamespace}, {Type: specs.PIDNamespace}, {Type: specs.IPCNamespace}, {Type: specs.UTSNamespace}, {Type: specs.NetworkNamespace},
		}},
	}
}

// A worker sees nothing of the host. It has no right that its specification does not grant, and no
// granted right that a guest has no use for.
func TestLaunchConfines(t *testing.T) {
	probe := buildProbe(t)
	inside := report{
		PID: 1, Umask: 0o022, Hostname: "inside", Dir: "/", NoNewPrivs: 1,
		Root: []string{"rootfs", "worker"}, AboveRoot: []string{"rootfs", "worker"},
		Rootfs: []string{"dev", "file", "proc", "t", "v"}, Volume: []string{"kept"}, Proc: []string{},
		Attempts: map[string]string{
			"write to the root": "EROFS", "write to the worker": "EROFS", "write to the volume": "EROFS", "write to the tmpfs": "allowed",
			"write to reserved": "ENOENT",
			"mount":             "EPERM", "remount": "EPERM", "unmount": "EPERM", "change root": "EPERM", "set hostname": "EPERM", "denied by seccomp": "allowed",
			"execute a program": underLandlock(2, "ENOENT"), "bind TCP": underLandlock(landlockNet, "allowed"),
		},
	}
	t.Run("root without capabilities", func(t *testing.T) {
		compare(t, launchProbe(t, probe, probed(t), Reserved{}), inside)
	})
	t.Run("as asked", func(t *testing.T) {
		spec, want := probed(t), inside
		umask, errno := uint32(0o077), uint(unix.ENOTSUP)
		spec.Process.User = specs.User{UID: 1000, GID: 2000, AdditionalGids: []uint32{3000}, Umask: &umask}
		override := []string{"CAP_DAC_OVERRIDE", "CAP_NET_BIND_SERVICE", "CAP_SYS_CHROOT", "CAP_SYS_ADMIN"}
		spec.Process.Capabilities = &specs.LinuxCapabilities{
			Bounding: append([]string{"CAP_CHOWN"}, override...), Permitted: override, Effective: override, Inheritable: override, Ambient: override,
		}
		spec.Linux.Seccomp = &specs.LinuxSeccomp{
			DefaultAction: specs.ActAllow,
			Architectures: []specs.Arch{specs.ArchX86_64, specs.ArchAARCH64},
			Syscalls:      []specs.LinuxSyscall{{Names: []string{"mkdir", "mkdirat"}, Action: specs.ActErrno, ErrnoRet: &errno}},
		}
		want.UID, want.GID, want.Groups, want.Umask = 1000, 2000, []int{3000}, 0o077
		want.NoNewPrivs, want.Seccomp = 1, 2
		want.Bounding, want.Permitted, want.Effective, want.Ambient = 1<<unix.CAP_CHOWN|1<<unix.CAP_DAC_OVERRIDE, 1<<unix.CAP_DAC_OVERRIDE, 1<<unix.CAP_DAC_OVERRIDE, 1<<unix.CAP_DAC_OVERRIDE
		want.Attempts = maps.Clone(inside.Attempts)
		want.Attempts["denied by seccomp"] = "ENOTSUP"
		compare(t, launchProbe(t, probe, spec, Reserved{}), want)
	})
	// The guest sees the volume read-only. The worker can write to it at a path that the guest cannot reach.
	t.Run("reserved volume", func(t *testing.T) {
		spec, want := probed(t), inside
		spec.Mounts[1].Options = []string{"rbind", "rw"}
		want.Root, want.AboveRoot = []string{"rootfs", "v", "worker"}, []string{"rootfs", "v", "worker"}
		want.Attempts = maps.Clone(inside.Attempts)
		want.Attempts["write to reserved"] = "allowed"
		compare(t, launchProbe(t, probe, spec, Reserved{Path: "/v"}), want)
	})
	t.Run("file shared in a reserved volume", func(t *testing.T) {
		spec, want := probed(t), inside
		spec.Mounts[1].Options = []string{"rbind", "rw"}
		want.Root, want.AboveRoot = []string{"rootfs", "v", "worker"}, []string{"rootfs", "v", "worker"}
		want.Volume = []string{"kept", "new"}
		want.Attempts = maps.Clone(inside.Attempts)
		want.Attempts["write to reserved"], want.Attempts["write to the volume"] = "allowed", "allowed"
		compare(t, launchProbe(t, probe, spec, Reserved{Path: "/v", Shared: "new"}), want)
		if text, err := os.ReadFile(filepath.Join(spec.Mounts[1].Source, "new")); string(text) != "x" {
			t.Errorf("the shared file holds %q, %v", text, err)
		}
	})
}

// If another container has put a link, a fifo or a folder in place of a shared file, the launch fails: it does
// not follow the link and does not write.
func TestSharedFileIsAFile(t *testing.T) {
	for name, plant := range map[string]func(path string) error{
		"link":   func(path string) error { return os.Symlink("/etc/passwd", path) },
		"fifo":   func(path string) error { return unix.Mkfifo(path, 0o666) },
		"folder": func(path string) error { return os.Mkdir(path, 0o777) },
	} {
		t.Run(name, func(t *testing.T) {
			spec := probed(t)
			spec.Mounts[1].Options = []string{"rbind", "rw"}
			if err := plant(filepath.Join(spec.Mounts[1].Source, "new")); err != nil {
				t.Fatal(err)
			}
			s, err := New(t.TempDir(), "")
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			if err := s.MountRootfs(nil, spec.Root, ""); err != nil {
				t.Fatal(err)
			}
			_, err = s.Launch(t.Context(), Launch{
				Spec: spec, Process: spec.Process, Worker: open(t, "/bin/true"), Argv: []string{"true"}, Reserved: Reserved{Path: "/v", Shared: "new"},
			})
			if !errors.Is(err, ErrNotRegular) {
				t.Errorf("got %v", err)
			}
		})
	}
}

// compare reports each field that differs.
func compare(t *testing.T, got, want report) {
	t.Helper()
	g, w := reflect.ValueOf(got), reflect.ValueOf(want)
	for i := range g.NumField() {
		if !reflect.DeepEqual(g.Field(i).Interface(), w.Field(i).Interface()) {
			t.Errorf("%s is %v, want %v", g.Type().Field(i).Name, g.Field(i), w.Field(i))
		}
	}
}

// OpenFile resolves every path as the container does, through any links, and opens only regular files.
func TestOpenFileStaysInside(t *testing.T) {
	dir := t.TempDir()
	root := filepath.Join(dir, "root")
	if err := os.MkdirAll(filepath.Join(root, "folder"), 0o755); err != nil {
		t.Fatal(err)
	}
	for path, text := range map[string]string{dir + "/secret": "secret", root + "/file": "inside"} {
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for name, target := range map[string]string{"good": "/file", "absolute": dir + "/secret", "up": "../secret", "loop": "loop", "magic": "/proc/self/exe"} {
		if err := os.Symlink(target, filepath.Join(root, name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := unix.Mkfifo(filepath.Join(root, "fifo"), 0o644); err != nil {
		t.Fatal(err)
	}
	s, err := New(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := s.MountRootfs(nil, &specs.Root{Path: root}, ""); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"/file", "file", "/good", "/../../file", "/folder/../../file"} {
		file, err := s.OpenFile(path)
		if err != nil {
			t.Errorf("%s: %v", path, err)
			continue
		}
		text := make([]byte, 16)
		if n, _ := file.Read(text); string(text[:n]) != "inside" {
			t.Errorf("%s holds %q", path, text[:n])
		}
		file.Close()
	}
	for path, want := range map[string]error{
		"/absolute": os.ErrNotExist, "/up": os.ErrNotExist, "/../secret": os.ErrNotExist, dir + "/secret": os.ErrNotExist, "/magic": os.ErrNotExist,
		"/loop": unix.ELOOP, "/folder": ErrNotRegular, "/fifo": ErrNotRegular,
	} {
		file, err := s.OpenFile(path)
		if err == nil {
			file.Close()
		}
		if !errors.Is(err, want) {
			t.Errorf("%s: got %v, want %v", path, err, want)
		}
	}
}

// The host sees no mount of a sandbox, before the sandbox is closed and afterwards.
func TestSandboxLeavesNothing(t *testing.T) {
	base := t.TempDir()
	s, err := New(base, "")
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	spec := probed(t)
	if err := s.MountRootfs(nil, spec.Root, ""); err != nil {
		t.Fatal(err)
	}
	if err := s.MountAll(spec); err != nil {
		t.Fatal(err)
	}
	if file, err := s.OpenFile("/v/kept"); err != nil {
		t.Error(err)
	} else {
		file.Close()
	}
	hidden := func() {
		t.Helper()
		mounts, err := os.ReadFile("/proc/self/mountinfo")
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(mounts), base) {
			t.Errorf("the host sees mounts at %s", base)
		}
		if entries, err := os.ReadDir(base); err != nil || len(entries) > 0 {
			t.Errorf("%s holds %v, %v", base, entries, err)
		}
	}
	hidden()
	s.Close()
	hidden()
}

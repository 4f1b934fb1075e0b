package sandbox

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// mountFuse mounts a file system that nobody serves.
func mountFuse(t *testing.T, path string, folder bool) (Fuse, *os.File) {
	t.Helper()
	device, err := OpenFuse()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { device.Close() })
	mount, err := MountFuse(device, path, folder)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		mount.Close()
		if err := mount.Connection.Abort(); err != nil {
			t.Error(err)
		}
		mount.Connection.Close()
	})
	return mount, device
}

// withArtifacts returns a container whose image has links, by path.
func withArtifacts(t *testing.T, links map[string]string, mounts ...specs.Mount) *specs.Spec {
	t.Helper()
	spec := probed(t)
	spec.Root.Path, _ = imageOf(t, links)
	spec.Mounts = append(spec.Mounts, mounts...)
	return spec
}

// A launch makes no request to a process that serves an artifact, wherever the paths of the container lead: here none
// answers.
func TestLaunchAsksNoArtifact(t *testing.T) {
	spec := withArtifacts(t, map[string]string{"work": "/in/folder/below", "hidden": "/in/folder", "dev/x": "/in/file"})
	spec.Process.Cwd = "/work"
	spec.Linux.MaskedPaths, spec.Linux.ReadonlyPaths = []string{"/hidden"}, []string{"/in/folder/below"}
	spec.Linux.Devices = []specs.LinuxDevice{charDevice("/dev/x", 1, 3)}
	folder, _ := mountFuse(t, "/in/folder", true)
	file, _ := mountFuse(t, "/in/other", false)
	input, hold := pipe(t)
	child, err := launchBusybox(t.Context(), t, spec, nil, Launch{Fuse: []Fuse{folder, file}}, input, "cat")
	if err != nil {
		t.Fatal(err)
	}
	defer end(t, child)
	defer hold.Close()
	if want := []served{{"/in/folder", folder.Connection.number}, {"/in/other", file.Connection.number}}; !slices.Equal(child.served, want) {
		t.Errorf("artifacts are at %v, want %v", child.served, want)
	}
	s, err := Join(child)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for _, path := range []string{"/in/folder/app.wasm", "/work/app.wasm", "/in/other", "/dev/x/../../in/other"} {
		if f, err := s.OpenFile(path); err == nil || !strings.Contains(err.Error(), "leads into the artifact at /in/") {
			t.Errorf("an exec opens %s: %v, %v", path, f, err)
		}
	}
	if f, err := s.OpenFile("/in/../dev/../in/missing"); !os.IsNotExist(err) {
		t.Errorf("a file beside an artifact: %v, %v", f, err)
	}
}

// Nor does an exec, if the guest has renamed the folder in which an artifact is.
func TestExecAsksNoArtifactThatHasMoved(t *testing.T) {
	spec := withArtifacts(t, nil)
	spec.Root.Readonly = false
	mount, _ := mountFuse(t, "/in/folder", true)
	input, hold := pipe(t)
	child, err := launchBusybox(t.Context(), t, spec, nil, Launch{Fuse: []Fuse{mount}}, input, "cat")
	if err != nil {
		t.Fatal(err)
	}
	defer end(t, child)
	defer hold.Close()
	root := fmt.Sprintf("/proc/%d/root%s", child.PID, GuestRoot)
	if err := errors.Join(os.Rename(root+"/in", root+"/moved"), os.Symlink("/moved/folder", root+"/link")); err != nil {
		t.Fatal(err)
	}
	s, err := Join(child)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for _, path := range []string{"/moved/folder/app.wasm", "/link/app.wasm", "/t/../moved/folder"} {
		opened := make(chan error, 1)
		go func() {
			f, err := s.OpenFile(path)
			if err == nil {
				f.Close()
			}
			opened <- err
		}()
		waiting := time.AfterFunc(10*time.Second, func() { _ = mount.Connection.Abort() })
		if err := <-opened; err == nil || !strings.Contains(err.Error(), "leads into the artifact at /in/folder") {
			t.Errorf("an exec opens %s: %v", path, err)
		}
		waiting.Stop()
	}
}

// A link of the image does not bring an artifact to a place where the daemon walks, or where another mount is.
func TestArtifactsAreApart(t *testing.T) {
	volume := specs.Mount{Destination: "/volume", Type: "bind", Source: t.TempDir(), Options: []string{"rbind"}}
	cgroup := specs.Mount{Destination: "/sys/fs/cgroup", Type: "cgroup", Source: "cgroup"}
	for name, c := range map[string]struct {
		links  map[string]string
		mounts []specs.Mount
		at     []string
		want   string
	}{
		"a volume":             {map[string]string{"in": "/volume"}, []specs.Mount{volume}, []string{"/in/x"}, "another mount, /volume"},
		"above a volume":       {map[string]string{"in": "/"}, []specs.Mount{volume}, []string{"/in/volume"}, "another mount, /volume"},
		"a tmpfs":              {map[string]string{"in": "/t"}, nil, []string{"/in/x"}, "another mount, /t"},
		"a file of the kernel": {map[string]string{"in": "/proc"}, nil, []string{"/in"}, "another mount, /proc"},
		"a folder of devices":  {map[string]string{"in": "/dev/shm"}, nil, []string{"/in"}, "the system mounts that itself"},
		"another artifact":     {map[string]string{"b": "/a/below"}, nil, []string{"/a", "/b"}, "another mount, /a"},
		"a mount by a link":    {map[string]string{"sys": "/in"}, []specs.Mount{cgroup}, []string{"/in"}, "another mount, /in/fs/cgroup"},
	} {
		t.Run(name, func(t *testing.T) {
			spec := withArtifacts(t, c.links, c.mounts...)
			var all []Fuse
			for _, at := range c.at {
				mount, _ := mountFuse(t, at, true)
				all = append(all, mount)
			}
			input, _ := pipe(t)
			child, err := launchBusybox(t.Context(), t, spec, nil, Launch{Fuse: all}, input, "cat")
			if err == nil {
				_ = child.Signal(unix.SIGKILL)
				end(t, child)
			}
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}

// The mount of an artifact goes over a mount of the specification where that is known, a volume of the kubelet.
func TestArtifactOnAMount(t *testing.T) {
	spec := withArtifacts(t, map[string]string{"in": "/elsewhere"}, specs.Mount{Destination: "/in/table", Type: "bind", Source: t.TempDir(), Options: []string{"rbind"}})
	mount, _ := mountFuse(t, "/in/table", true)
	mount.OnMount = true
	input, hold := pipe(t)
	child, err := launchBusybox(t.Context(), t, spec, nil, Launch{Fuse: []Fuse{mount}}, input, "cat")
	if err != nil {
		t.Fatal(err)
	}
	hold.Close()
	end(t, child)
}

// startConnection answers the kernel's first request, and returns when the next one has been read. Nobody answers that.
func startConnection(t *testing.T, device *os.File) {
	t.Helper()
	request := make([]byte, 1<<17)
	read := func() fuse.InHeader {
		n, err := unix.Read(int(device.Fd()), request)
		if err != nil {
			t.Fatal(err)
		}
		var h fuse.InHeader
		if err := binary.Read(bytes.NewReader(request[:n]), binary.NativeEndian, &h); err != nil {
			t.Fatal(err)
		}
		return h
	}
	init := fuse.InitOut{Major: 7, Minor: 31, MaxWrite: 4096}
	answer := fuse.OutHeader{Unique: read().Unique, Length: uint32(binary.Size(fuse.OutHeader{}) + binary.Size(init))}
	var text bytes.Buffer
	for _, part := range []any{answer, init} {
		if err := binary.Write(&text, binary.NativeEndian, part); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := unix.Write(int(device.Fd()), text.Bytes()); err != nil {
		t.Fatal(err)
	}
	read()
}

// A process that waits for an artifact cannot be killed while anybody has the descriptor by which that is served. The end
// of the connection lets it go: by the handle, and by what can be seen of the process.
func TestAbortOfAConnection(t *testing.T) {
	for name, abort := range map[string]func(Fuse, Child) error{
		"by the handle":  func(f Fuse, _ Child) error { return f.Connection.Abort() },
		"by the process": func(_ Fuse, c Child) error { return AbortConnections(c.PID, c.Handle) },
	} {
		t.Run(name, func(t *testing.T) {
			spec := withArtifacts(t, nil)
			mount, device := mountFuse(t, "/in", false)
			input, _ := pipe(t)
			child, err := launchBusybox(t.Context(), t, spec, nil, Launch{Fuse: []Fuse{mount}}, input, "cat", GuestRoot+"/in")
			if err != nil {
				t.Fatal(err)
			}
			mount.Close()
			startConnection(t, device)
			if err := child.Signal(unix.SIGKILL); err != nil {
				t.Fatal(err)
			}
			for !strings.Contains(stateOf(t, child.PID), "disk sleep") {
				runtime.Gosched()
			}
			if err := abort(mount, child); err != nil {
				t.Error(err)
			}
			for !strings.Contains(stateOf(t, child.PID), "zombie") {
				runtime.Gosched()
			}
			if err := AbortConnections(child.PID, child.Handle); err != nil {
				t.Errorf("of a process that is not reaped: %v", err)
			}
			end(t, child)
		})
	}
}

// A process that has ended and is not reaped has no mounts: Linux does not open their list.
func TestAbortConnectionsOfAZombie(t *testing.T) {
	cmd := exec.Command("/bin/true")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for !strings.Contains(stateOf(t, cmd.Process.Pid), "zombie") {
		runtime.Gosched()
	}
	fd, err := unix.PidfdOpen(cmd.Process.Pid, 0)
	if err != nil {
		t.Fatal(err)
	}
	handle := os.NewFile(uintptr(fd), "zombie")
	defer handle.Close()
	if err := AbortConnections(cmd.Process.Pid, handle); err != nil {
		t.Error(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
}

// A number that the kernel gives to another connection, while the first is looked for, does not end the other.
func TestAbortOfANumberThatIsReused(t *testing.T) {
	mount, device := mountFuse(t, "/in", true)
	other, otherDevice := mountFuse(t, "/other", true)
	lists := [][]uint32{{mount.Connection.number, other.Connection.number}, {mount.Connection.number}}
	if err := abortConnections(func() ([]uint32, error) {
		list := lists[0]
		lists = lists[1:]
		return list, nil
	}); err != nil {
		t.Fatal(err)
	}
	for d, want := range map[*os.File]bool{device: true, otherDevice: false} {
		poll := []unix.PollFd{{Fd: int32(d.Fd()), Events: unix.POLLIN}}
		if _, err := unix.Poll(poll, 0); err != nil {
			t.Fatal(err)
		}
		if ended := poll[0].Revents&unix.POLLERR != 0; ended != want {
			t.Errorf("a connection has ended: %v, want %v", ended, want)
		}
	}
}

func stateOf(t *testing.T, pid int) string {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	_, state, _ := strings.Cut(string(status), "State:")
	state, _, _ = strings.Cut(state, "\n")
	return state
}

func TestArtifactDevices(t *testing.T) {
	text := `36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue
37 35 0:77 / /in rw,nosuid - fuse wasm-shim-artifact rw,user_id=0
38 35 0:78 / /out rw,nosuid - fuse.sshfs wasm-shim-artifact rw
39 35 0:79 / /out rw,nosuid - fuse other rw
40 35 0:1048575 / /x - fuse wasm-shim-artifact rw
short - fuse
`
	got, err := artifactDevices(strings.NewReader(text))
	if err != nil || !slices.Equal(got, []uint32{77, 1048575}) {
		t.Errorf("got %v, %v", got, err)
	}
}

// A process that joins apart is in no pid namespace of the container, and its children end with it.
func TestJoinApart(t *testing.T) {
	container := launchMover(t, buildMover(t), probed(t), 0)
	s, err := JoinApart(container)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	spec := probed(t)
	input, hold := pipe(t)
	child, err := s.Launch(t.Context(), Launch{
		Spec: spec, Process: spec.Process, Worker: open(t, "/bin/busybox"), Argv: []string{"cat"}, Files: []*os.File{input, open(t, os.DevNull), open(t, os.DevNull)},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer end(t, child)
	defer hold.Close()
	if n := numberInside(t, child.PID); n != 1 {
		t.Errorf("it is process %d of its namespace, want 1", n)
	}
	for _, ns := range []string{"pid", "net", "ipc", "uts", "cgroup"} {
		own, theirs := namespaceLink(t, child.PID, ns), namespaceLink(t, container.PID, ns)
		if (own == theirs) != (ns != "pid") {
			t.Errorf("namespace %s is %s, that of the container %s", ns, own, theirs)
		}
	}
	if parent := parentNamespace(t, child.PID); parent != namespaceLink(t, os.Getpid(), "pid") {
		t.Errorf("its pid namespace is in %s", parent)
	}
}

func namespaceLink(t *testing.T, pid int, ns string) string {
	t.Helper()
	link, err := os.Readlink(filepath.Join("/proc", fmt.Sprint(pid), "ns", ns))
	if err != nil {
		t.Fatal(err)
	}
	return link
}

// parentNamespace returns the pid namespace in which a process's own was made (ioctl_nsfs(2)).
func parentNamespace(t *testing.T, pid int) string {
	t.Helper()
	own := open(t, fmt.Sprintf("/proc/%d/ns/pid", pid))
	fd, err := unix.IoctlRetInt(int(own.Fd()), unix.NS_GET_PARENT)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("pid:[%d]", st.Ino)
}

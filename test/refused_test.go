package test

import (
	"context"
	"encoding/json"
	"testing"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/pkg/cio"
	"github.com/containerd/containerd/v2/pkg/oci"
	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/wasmshim/containerd-shim-wasm/internal/testguest"
	"github.com/wasmshim/containerd-shim-wasm/internal/testnode"
)

const refusedImage = "example.com/refused/hello:latest"

// refusal is a change to the specification of a container that would run. The changed specification cannot be
// honoured, and the error must name want.
type refusal struct {
	name   string
	change func(*specs.Spec)
	want   []string
}

// unsupported is the text in errors about unsupported fields.
const unsupported = "not supported in Wasm containers"

func namespace(kind specs.LinuxNamespaceType, path string) func(*specs.Spec) {
	return func(s *specs.Spec) {
		s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: kind, Path: path})
	}
}

func mounted(m specs.Mount) func(*specs.Spec) {
	return func(s *specs.Spec) { s.Mounts = append(s.Mounts, m) }
}

func bound(options ...string) func(*specs.Spec) {
	return mounted(specs.Mount{Destination: "/mnt", Type: "bind", Source: "/etc", Options: append([]string{"rbind"}, options...)})
}

func limited(kind string, value uint64) func(*specs.Spec) {
	return func(s *specs.Spec) {
		s.Process.Rlimits = append(s.Process.Rlimits, specs.POSIXRlimit{Type: kind, Soft: value, Hard: value})
	}
}

func filtered(profile specs.LinuxSeccomp) func(*specs.Spec) {
	return func(s *specs.Spec) { s.Linux.Seccomp = &profile }
}

var identity = []specs.LinuxIDMapping{{ContainerID: 0, HostID: 100000, Size: 65536}}

var refusals = []refusal{
	{"user namespace", namespace(specs.UserNamespace, ""), []string{"linux.namespaces user", unsupported, "hostUsers"}},
	{"time namespace", namespace(specs.TimeNamespace, ""), []string{"linux.namespaces time", unsupported}},
	{"unknown namespace", namespace("parallel", ""), []string{"linux.namespaces parallel", "unknown"}},
	{"mount namespace of another", namespace(specs.MountNamespace, "/proc/1/ns/mnt"), []string{"linux.namespaces mount with a path", unsupported}},
	{"no mount namespace", func(s *specs.Spec) {
		var kept []specs.LinuxNamespace
		for _, ns := range s.Linux.Namespaces {
			if ns.Type != specs.MountNamespace {
				kept = append(kept, ns)
			}
		}
		s.Linux.Namespaces = kept
	}, []string{"linux.namespaces lacks mount"}},
	{"hook", func(s *specs.Spec) { s.Hooks = &specs.Hooks{StartContainer: []specs.Hook{{Path: "/bin/true"}}} }, []string{"hooks.startContainer", unsupported}},
	{"intelRdt", func(s *specs.Spec) { s.Linux.IntelRdt = &specs.LinuxIntelRdt{ClosID: "a"} }, []string{"linux.intelRdt", unsupported}},
	{"uidMappings", func(s *specs.Spec) { s.Linux.UIDMappings = identity }, []string{"linux.uidMappings", unsupported}},
	{"gidMappings", func(s *specs.Spec) { s.Linux.GIDMappings = identity }, []string{"linux.gidMappings", unsupported}},
	{"timeOffsets", func(s *specs.Spec) {
		s.Linux.TimeOffsets = map[string]specs.LinuxTimeOffset{"boottime": {Secs: 1}}
	}, []string{"linux.timeOffsets", unsupported}},
	{"memoryPolicy", func(s *specs.Spec) { s.Linux.MemoryPolicy = &specs.LinuxMemoryPolicy{Mode: "MPOL_DEFAULT"} }, []string{"linux.memoryPolicy", unsupported}},
	{"netDevices", func(s *specs.Spec) { s.Linux.NetDevices = map[string]specs.LinuxNetDevice{"eth7": {}} }, []string{"linux.netDevices", unsupported}},
	{"personality", func(s *specs.Spec) { s.Linux.Personality = &specs.LinuxPersonality{Domain: specs.PerLinux32} }, []string{"linux.personality", unsupported}},
	{"windows", func(s *specs.Spec) { s.Windows = &specs.Windows{LayerFolders: []string{"a"}} }, []string{"windows", unsupported}},
	{"ioPriority", func(s *specs.Spec) { s.Process.IOPriority = &specs.LinuxIOPriority{Class: specs.IOPRIO_CLASS_BE} }, []string{"process.ioPriority", unsupported}},
	{"scheduler", func(s *specs.Spec) { s.Process.Scheduler = &specs.Scheduler{Policy: specs.SchedFIFO, Priority: 1} }, []string{"process.scheduler", unsupported}},
	{"execCPUAffinity", func(s *specs.Spec) { s.Process.ExecCPUAffinity = &specs.CPUAffinity{Initial: "0"} }, []string{"process.execCPUAffinity", unsupported}},
	{"commandLine", func(s *specs.Spec) { s.Process.CommandLine = "app.exe" }, []string{"process.commandLine", unsupported}},
	{"rlimit", limited("RLIMIT_PATIENCE", 1), []string{"process.rlimits", `"RLIMIT_PATIENCE"`, "unknown"}},
	{"address space", limited("RLIMIT_AS", 1<<30), []string{"process.rlimits RLIMIT_AS", "too low"}},
	{"open files", limited("RLIMIT_NOFILE", 5), []string{"process.rlimits RLIMIT_NOFILE of 5 is too low", "32 is the least"}},
	{"threads of the user", func(s *specs.Spec) {
		s.Process.User.UID = 1000
		limited("RLIMIT_NPROC", 4)(s)
	}, []string{"process.rlimits RLIMIT_NPROC of 4 is too low", "16 is the least"}},
	{"pids limit", func(s *specs.Spec) {
		s.Linux.Resources = &specs.LinuxResources{Pids: &specs.LinuxPids{Limit: new(int64(7))}}
	}, []string{"linux.resources.pids.limit of 7 is too low", "16 is the least"}},
	{"capability", func(s *specs.Spec) { s.Process.Capabilities = &specs.LinuxCapabilities{Bounding: []string{"CAP_FLY"}} }, []string{"process.capabilities", `"CAP_FLY"`, "unknown"}},
	{"sysctl of the host", func(s *specs.Spec) { s.Linux.Sysctl = map[string]string{"vm.swappiness": "1"} }, []string{"linux.sysctl", `"vm.swappiness"`}},
	{"propagation", func(s *specs.Spec) { s.Linux.RootfsPropagation = "sideways" }, []string{"linux.rootfsPropagation", `"sideways"`}},
	{"cgroup of all", func(s *specs.Spec) { s.Linux.CgroupsPath = "/" }, []string{"linux.cgroupsPath"}},
	{"device type", func(s *specs.Spec) {
		s.Linux.Devices = append(s.Linux.Devices, specs.LinuxDevice{Path: "/dev/odd", Type: "x", Major: 1, Minor: 3})
	}, []string{"/dev/odd", `type "x"`}},
	{"id-mapped mount", mounted(specs.Mount{Destination: "/mnt", Type: "bind", Source: "/etc", Options: []string{"rbind"}, UIDMappings: identity, GIDMappings: identity}), []string{"/mnt", "uidMappings", unsupported}},
	{"idmap", bound("idmap"), []string{"/mnt", `"idmap"`, unsupported}},
	{"option of a bind mount", bound("size=1m"), []string{"/mnt", `"size=1m"`, "unknown"}},
	{"option of a tmpfs", mounted(specs.Mount{Destination: "/mnt", Type: "tmpfs", Source: "tmpfs", Options: []string{"colour=red"}}), []string{"/mnt", "colour"}},
	{"file system", mounted(specs.Mount{Destination: "/mnt", Type: "nosuchfs", Source: "nosuchfs"}), []string{"/mnt", "nosuchfs"}},
	{"seccomp listener", filtered(specs.LinuxSeccomp{DefaultAction: specs.ActAllow, ListenerPath: "/run/listener"}), []string{"linux.seccomp.listenerPath"}},
	{"seccomp notify", filtered(specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Syscalls: []specs.LinuxSyscall{{Names: []string{"mkdir"}, Action: specs.ActNotify}}}), []string{"linux.seccomp.syscalls[0]", "SCMP_ACT_NOTIFY"}},
	{"seccomp action", filtered(specs.LinuxSeccomp{DefaultAction: "SCMP_ACT_SHRUG"}), []string{"linux.seccomp.defaultAction", "SCMP_ACT_SHRUG"}},
	{"seccomp flag", filtered(specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Flags: []specs.LinuxSeccompFlag{"SHRUG"}}), []string{"linux.seccomp.flags[0]", `"SHRUG"`}},
}

// tryTask creates a container of the image with the options, then a task of it, and returns the task's error.
// It removes both before it returns.
func tryTask(t *testing.T, c *client.Client, opts []client.NewContainerOpts, taskOpts ...client.NewTaskOpts) error {
	t.Helper()
	ctx := t.Context()
	container, err := c.NewContainer(ctx, "refused", opts...)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := container.Delete(ctx, client.WithSnapshotCleanup); err != nil {
			t.Error(err)
		}
	}()
	task, err := container.NewTask(ctx, cio.NullIO, taskOpts...)
	if err == nil {
		if _, err := task.Delete(ctx, client.WithProcessKill); err != nil {
			t.Error(err)
		}
		return nil
	}
	if _, err := container.Task(ctx, nil); !errdefs.IsNotFound(err) {
		t.Errorf("the task is still there: %v", err)
	}
	return err
}

func refusedContainer(image client.Image, change func(*specs.Spec)) []client.NewContainerOpts {
	apply := func(_ context.Context, _ oci.Client, _ *containers.Container, s *oci.Spec) error {
		change(s)
		return nil
	}
	return []client.NewContainerOpts{
		client.WithImage(image),
		client.WithNewSnapshot("refused", image),
		client.WithRuntime(runtime, nil),
		client.WithNewSpec(oci.WithImageConfig(image), apply),
	}
}

// withSpecJSON changes the specification as JSON, for values that the Go types cannot express.
func withSpecJSON(change func(document map[string]any)) client.NewContainerOpts {
	return func(_ context.Context, _ *client.Client, record *containers.Container) error {
		var document map[string]any
		if err := json.Unmarshal(record.Spec.GetValue(), &document); err != nil {
			return err
		}
		change(document)
		value, err := json.Marshal(document)
		record.Spec = &anypb.Any{TypeUrl: record.Spec.GetTypeUrl(), Value: value}
		return err
	}
}

func refusedNode(t *testing.T, node *testnode.Node) (*client.Client, client.Image) {
	t.Helper()
	node.Import(t, testguest.Wasm(t, refusedImage, "hello-c"))
	c := node.Client(t)
	image, err := c.GetImage(t.Context(), refusedImage)
	if err != nil {
		t.Fatal(err)
	}
	return c, image
}

// A specification with a field that cannot be honoured is refused, and the error names the field.
func TestRefusedFields(t *testing.T) {
	nodes.EachVersion(t, func(t *testing.T, node *testnode.Node) {
		c, image := refusedNode(t, node)
		node.NoLeaks(t)
		if err := tryTask(t, c, refusedContainer(image, func(*specs.Spec) {})); err != nil {
			t.Fatalf("the container that the cases change: %v", err)
		}
		for _, r := range refusals {
			t.Run(r.name, func(t *testing.T) {
				err := tryTask(t, c, refusedContainer(image, r.change))
				if err == nil {
					t.Fatal("the task was created")
				}
				wantAll(t, err.Error(), r.want)
			})
		}
	})
}

func TestUnknownFieldsAreRefused(t *testing.T) {
	nodes.EachVersion(t, func(t *testing.T, node *testnode.Node) {
		c, image := refusedNode(t, node)
		node.NoLeaks(t)
		for name, change := range map[string]func(map[string]any){
			"atTheTop":  func(d map[string]any) { d["atTheTop"] = true },
			"inLinux":   func(d map[string]any) { d["linux"].(map[string]any)["inLinux"] = []int{1} },
			"inProcess": func(d map[string]any) { d["process"].(map[string]any)["inProcess"] = "x" },
		} {
			opts := append(refusedContainer(image, func(*specs.Spec) {}), withSpecJSON(change))
			err := tryTask(t, c, opts)
			if err == nil {
				t.Errorf("%s: the task was created", name)
				continue
			}
			wantAll(t, err.Error(), []string{"specification", `unknown field "` + name + `"`})
		}
	})
}

// If a root file system cannot be mounted or read, the error names it.
func TestRootfsThatFails(t *testing.T) {
	nodes.EachVersion(t, func(t *testing.T, node *testnode.Node) {
		c, image := refusedNode(t, node)
		node.NoLeaks(t)
		for name, test := range map[string]struct {
			rootfs mount.Mount
			want   []string
		}{
			"overlay": {mount.Mount{Type: "overlay", Source: "overlay", Options: []string{"lowerdir=/nonexistent/a:/nonexistent/b"}}, []string{"mount root file system", "overlay", "no such file"}},
			"bind":    {mount.Mount{Type: "bind", Source: "/nonexistent/rootfs", Options: []string{"rbind", "ro"}}, []string{"mount root file system", "/nonexistent/rootfs", "no such file"}},
			"type":    {mount.Mount{Type: "nosuchfs", Source: "/etc"}, []string{"mount root file system", "nosuchfs", "no such device"}},
			"file":    {mount.Mount{Type: "bind", Source: "/etc/hostname", Options: []string{"bind"}}, []string{"mount root file system", "/etc/hostname", "invalid argument"}},
		} {
			err := tryTask(t, c, refusedContainer(image, func(*specs.Spec) {}), client.WithRootFS([]mount.Mount{test.rootfs}))
			if err == nil {
				t.Errorf("%s: the task was created", name)
				continue
			}
			wantAll(t, err.Error(), test.want)
		}
	})
}

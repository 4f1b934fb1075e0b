package test

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/containerd/nri/pkg/api"
	"github.com/containerd/nri/pkg/stub"
	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/wasmshim/containerd-shim-wasm/internal/testnode"
)

// nriPlugin is a plugin of NRI (https://github.com/containerd/nri) that changes every container in the same
// way.
type nriPlugin struct {
	stub.Stub
	connected chan struct{}

	mu     sync.Mutex
	adjust func(*api.ContainerAdjustment)
	update func(*api.ContainerUpdate)
}

// startNRIPlugin returns a plugin that changes nothing yet.
func startNRIPlugin(t *testing.T, node *testnode.Node) *nriPlugin {
	t.Helper()
	p := &nriPlugin{connected: make(chan struct{})}
	var err error
	p.Stub, err = stub.New(p, stub.WithSocketPath(node.NRI()), stub.WithPluginName("tests"), stub.WithPluginIdx("10"), stub.WithOnClose(func() {}))
	if err == nil {
		err = p.Start(t.Context())
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Stop)
	<-p.connected // from now on containerd asks the plugin before it creates a container
	return p
}

// change sets the changes to containers; nil means none.
func (p *nriPlugin) change(adjust func(*api.ContainerAdjustment), update func(*api.ContainerUpdate)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.adjust, p.update = adjust, update
}

func (p *nriPlugin) Synchronize(context.Context, []*api.PodSandbox, []*api.Container) ([]*api.ContainerUpdate, error) {
	close(p.connected)
	return nil, nil
}

func (p *nriPlugin) CreateContainer(context.Context, *api.PodSandbox, *api.Container) (*api.ContainerAdjustment, []*api.ContainerUpdate, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.adjust == nil {
		return nil, nil, nil
	}
	adjustment := &api.ContainerAdjustment{}
	p.adjust(adjustment)
	return adjustment, nil, nil
}

func (p *nriPlugin) UpdateContainer(_ context.Context, _ *api.PodSandbox, c *api.Container, _ *api.LinuxResources) ([]*api.ContainerUpdate, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.update == nil {
		return nil, nil
	}
	update := &api.ContainerUpdate{}
	update.SetContainerId(c.Id)
	p.update(update)
	return []*api.ContainerUpdate{update}, nil
}

// The changes that an NRI plugin makes to a container take effect in a Wasm container as in one of runc: when
// the container is created, when Kubernetes changes its resources, and when the plugin sends an update by
// itself. An update of the pod's resources affects neither.
func TestNRIPlugin(t *testing.T) {
	eachVersionWithPods(t, func(t *testing.T, node *testnode.Node) {
		plugin := startNRIPlugin(t, node)
		want := map[string]string{
			"variable": "NRI=on", "device": "nri", "file": "of the plugin", "open files": "2000 3000", "out-of-memory score": "500",
			"memory": fmt.Sprint(200 << 20), "pids": "150", "cpu": "50000", "annotation": "adjusted",
			"memory after an update": fmt.Sprint(300 << 20), "memory after the plugin's own": fmt.Sprint(250 << 20),
		}
		for _, c := range []struct {
			way  way
			pod  string
			args []string
		}{
			{asWasm, ourHandler, []string{"/app.wasm", "env", ",", "ls", "/dev", ",", "read", "/opt/nri/file", ",", "sleep", "1000"}},
			{asNative, stockHandler, []string{"sh", "-c", "env; ls /dev; cat /opt/nri/file; echo sleeping; sleep 1000"}},
		} {
			volume, l := t.TempDir(), newHookLog(t)
			put(t, "of the plugin\n", volume, "file")
			plugin.change(func(a *api.ContainerAdjustment) {
				hook, score := l.hook("createRuntime"), 500
				a.AddEnv("NRI", "on")
				a.AddMount(&api.Mount{Source: volume, Destination: "/opt/nri", Type: "bind", Options: []string{"rbind", "ro"}})
				a.AddAnnotation("nri.example/test", "adjusted")
				a.AddRlimit("RLIMIT_NOFILE", 3000, 2000)
				a.AddDevice(&api.LinuxDevice{Path: "/dev/nri", Type: "c", Major: 1, Minor: 3, FileMode: api.FileMode(os.FileMode(0o666))})
				a.AddHooks(&api.Hooks{CreateRuntime: []*api.Hook{{Path: hook.Path, Args: hook.Args, Env: hook.Env}}})
				a.SetLinuxOomScoreAdj(&score)
				a.SetLinuxMemoryLimit(200 << 20)
				a.SetLinuxPidLimits(150)
				a.SetLinuxCPUQuota(50000)
				a.SetLinuxCPUPeriod(100000)
			}, func(u *api.ContainerUpdate) { u.SetLinuxMemoryLimit(300 << 20) })
			p := runPod(t, node, c.pod, nil)
			m := p.add(c.way, "sleep", func(config *criapi.ContainerConfig) { config.Command = c.args })
			m.start()
			m.await("sleeping")
			got := m.adjusted(l)
			if _, err := m.cri.UpdateContainerResources(m.ctx, &criapi.UpdateContainerResourcesRequest{
				ContainerId: m.id, Linux: &criapi.LinuxContainerResources{MemoryLimitInBytes: 220 << 20},
			}); err != nil {
				t.Fatal(err)
			}
			got["memory after an update"] = m.limit("memory", "memory.limit_in_bytes", "memory.max")
			update := &api.ContainerUpdate{}
			update.SetContainerId(m.id)
			update.SetLinuxMemoryLimit(250 << 20)
			if failed, err := plugin.UpdateContainers([]*api.ContainerUpdate{update}); err != nil || len(failed) > 0 {
				t.Fatal(failed, err)
			}
			got["memory after the plugin's own"] = m.limit("memory", "memory.limit_in_bytes", "memory.max")
			resources := &criapi.LinuxContainerResources{MemoryLimitInBytes: 400 << 20}
			if _, err := p.cri.UpdatePodSandboxResources(p.ctx, &criapi.UpdatePodSandboxResourcesRequest{PodSandboxId: p.id, Resources: resources}); err != nil && node.Version == "2.4" { // the other versions lack this call
				t.Errorf("%s: %v", c.way.name, err)
			}
			if !maps.Equal(got, want) {
				t.Errorf("%s: got\n%v, want\n%v", c.way.name, got, want)
			}
			plugin.change(nil, nil)
		}
	})
}

// hasNewNRI reports whether the node's containerd has NRI 0.11 or later.
func hasNewNRI(node *testnode.Node) bool { return node.Version != "1.7" && node.Version != "2.1" }

// adjusted returns the values that a container has for the settings that TestNRIPlugin's plugin changes.
func (m member) adjusted(l hookLog) map[string]string {
	m.t.Helper()
	log, err := os.ReadFile(m.log)
	if err != nil {
		m.t.Fatal(err)
	}
	got := map[string]string{
		"memory": m.limit("memory", "memory.limit_in_bytes", "memory.max"),
		"pids":   m.limit("pids", "pids.max", "pids.max"),
		"cpu":    strings.Fields(m.limit("cpu", "cpu.cfs_quota_us", "cpu.max"))[0],
	}
	for name, line := range map[string]string{"variable": "NRI=on", "device": "nri", "file": "of the plugin"} {
		if strings.Contains(string(log), "F "+line+"\n") {
			got[name] = line
		}
	}
	for line := range strings.Lines(m.proc("limits")) {
		if rest, ok := strings.CutPrefix(line, "Max open files"); ok {
			got["open files"] = strings.Join(strings.Fields(rest)[:2], " ")
		}
	}
	got["out-of-memory score"] = strings.TrimSpace(m.proc("oom_score_adj"))
	for _, h := range l.read(m.t) {
		got["annotation"] = h.state.Annotations["nri.example/test"]
	}
	return got
}

// proc reads a file of the container's process.
func (m member) proc(name string) string {
	m.t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", m.pid(), name))
	if err != nil {
		m.t.Fatal(err)
	}
	return string(text)
}

// limit reads a file of the container's cgroup: on v1 below its controller, else on v2.
func (m member) limit(controller, v1, v2 string) string {
	m.t.Helper()
	for line := range strings.Lines(m.proc("cgroup")) {
		fields := strings.SplitN(strings.TrimSpace(line), ":", 3)
		dir, file := "", v2
		if fields[0] != "0" {
			dir, file = controller, v1
			if !slices.Contains(strings.Split(fields[1], ","), controller) {
				continue
			}
		}
		if text, err := os.ReadFile(filepath.Join("/sys/fs/cgroup", dir, fields[2], file)); err == nil {
			return strings.TrimSpace(string(text))
		}
	}
	m.t.Errorf("no %s or %s for %s", v1, v2, m.id)
	return ""
}

// A plugin may change which module of its image a Wasm container runs.
func TestNRIPluginChoosesTheModule(t *testing.T) {
	eachVersionWithPods(t, func(t *testing.T, node *testnode.Node) {
		if !hasNewNRI(node) {
			t.Skip("their NRI lets no plugin change arguments")
		}
		plugin := startNRIPlugin(t, node)
		p := runPod(t, node, ourHandler, nil)
		plugin.change(func(a *api.ContainerAdjustment) { a.SetArgs([]string{"/hello.wasm"}) }, nil)
		p.run(asWasm, "sleep", "hello from C")
	})
}

// If a plugin requests something that a Wasm container cannot have, the start fails with an error that names
// it. The shim does not ignore it.
func TestNRIPluginsAdjustmentIsRefused(t *testing.T) {
	refused := map[string]func(*api.ContainerAdjustment){
		"startContainer": func(a *api.ContainerAdjustment) {
			a.AddHooks(&api.Hooks{StartContainer: []*api.Hook{{Path: "/bin/true"}}})
		},
		"RLIMIT_AS":                  func(a *api.ContainerAdjustment) { a.AddRlimit("RLIMIT_AS", 1<<20, 1<<20) },
		"linux.resources.pids.limit": func(a *api.ContainerAdjustment) { a.SetLinuxPidLimits(1) },
	}
	newer := map[string]func(*api.ContainerAdjustment){
		"process.scheduler": func(a *api.ContainerAdjustment) {
			a.SetLinuxScheduler(&api.LinuxScheduler{Policy: api.LinuxSchedulerPolicy_SCHED_BATCH})
		},
		"process.ioPriority": func(a *api.ContainerAdjustment) {
			a.SetLinuxIOPriority(&api.LinuxIOPriority{Class: api.IOPrioClass_IOPRIO_CLASS_IDLE})
		},
		"linux.memoryPolicy": func(a *api.ContainerAdjustment) {
			a.SetLinuxMemoryPolicy(api.MpolMode_MPOL_INTERLEAVE, "0")
		},
		"linux.intelRdt": func(a *api.ContainerAdjustment) { a.SetLinuxRDTClosID("class") },
		"linux.netDevices": func(a *api.ContainerAdjustment) {
			a.AddLinuxNetDevice("lo", &api.LinuxNetDevice{Name: "other"})
		},
		"linux.namespaces user": func(a *api.ContainerAdjustment) { a.AddOrReplaceNamespace(&api.LinuxNamespace{Type: "user"}) },
	}
	eachVersionWithPods(t, func(t *testing.T, node *testnode.Node) {
		plugin := startNRIPlugin(t, node)
		adjustments := maps.Clone(refused)
		if node.Version == "2.4" { // version 0.12 of NRI
			maps.Copy(adjustments, newer)
		}
		p := runPod(t, node, ourHandler, nil)
		for name, adjust := range adjustments {
			plugin.change(adjust, nil)
			m, err := p.tryAdd(asWasm, "sleep", nil)
			if err == nil {
				_, err = m.cri.StartContainer(m.ctx, &criapi.StartContainerRequest{ContainerId: m.id})
			}
			if err == nil || !strings.Contains(err.Error(), name) {
				t.Errorf("%s: got %v", name, err)
			}
		}
		plugin.change(nil, nil)
		p.run(asWasm, "sleep", "sleeping")
	})
}

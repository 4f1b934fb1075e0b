package test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/wasmshim/containerd-shim-wasm/internal/testguest"
	"github.com/wasmshim/containerd-shim-wasm/internal/testnode"
)

// The handlers of a node's pods: ours and the stock one.
const (
	ourHandler   = testnode.WasmHandler
	stockHandler = ""
)

// eachVersionWithPods runs the test on every containerd that has CRI, with the pod images imported. The test
// fails if it leaves anything behind.
func eachVersionWithPods(t *testing.T, test func(t *testing.T, node *testnode.Node)) {
	t.Helper()
	podNodes.EachVersion(t, func(t *testing.T, node *testnode.Node) {
		importPodImages(t, node)
		node.NoLeaks(t)
		test(t, node)
	})
}

// importPodImages imports the images of pods unless the node has them already.
func importPodImages(t *testing.T, node *testnode.Node) {
	t.Helper()
	pods := podsOf(t, node)
	if pods.Has(t.Context(), tasksNativeImage) {
		return
	}
	pause, err := testguest.PauseImage()
	if err != nil {
		t.Fatal(err)
	}
	for ref, path := range map[string]string{
		testnode.PauseImage: testguest.Image(t, testnode.PauseImage, pause),
		tasksWasmImage:      tasksWasmTar(t),
		tasksNativeImage:    testguest.Busybox(t, tasksNativeImage),
	} {
		if err := pods.Import(t.Context(), path, ref); err != nil {
			t.Fatal(err)
		}
	}
}

// podsOf returns the CRI services of a node.
func podsOf(t testing.TB, node *testnode.Node) *testnode.Pods {
	t.Helper()
	pods, err := node.Pods()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := pods.Close(); err != nil {
			t.Error(err)
		}
	})
	return pods
}

// pod is one like a kubelet's. It is removed at the end of its test.
type pod struct {
	t      testing.TB
	ctx    context.Context // outlives the test, for the cleanup
	node   *testnode.Node
	cri    *testnode.Pods
	id     string
	config *criapi.PodSandboxConfig
}

var lastPod atomic.Int64

// runPod runs a pod without containers. change may be nil.
func runPod(t testing.TB, node *testnode.Node, handler string, change func(*criapi.PodSandboxConfig)) *pod {
	t.Helper()
	p, err := tryPod(t, node, handler, change)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func tryPod(t testing.TB, node *testnode.Node, handler string, change func(*criapi.PodSandboxConfig)) (*pod, error) {
	t.Helper()
	name := fmt.Sprintf("pod-%d", lastPod.Add(1))
	logs := filepath.Join(t.TempDir(), "logs")
	if err := os.Mkdir(logs, 0o755); err != nil {
		t.Fatal(err)
	}
	p := &pod{t: t, ctx: context.Background(), node: node, cri: podsOf(t, node), config: &criapi.PodSandboxConfig{
		Metadata:     &criapi.PodSandboxMetadata{Name: name, Uid: name, Namespace: "tests"},
		Hostname:     name,
		LogDirectory: logs,
		Linux: &criapi.LinuxPodSandboxConfig{
			CgroupParent: node.CgroupParent(name),
			SecurityContext: &criapi.LinuxSandboxSecurityContext{
				NamespaceOptions: &criapi.NamespaceOption{Pid: criapi.NamespaceMode_CONTAINER},
				Seccomp:          &criapi.SecurityProfile{ProfileType: criapi.SecurityProfile_RuntimeDefault},
			},
		},
	}}
	if change != nil {
		change(p.config)
	}
	t.Cleanup(func() { removeCgroupParent(t, p.config.Linux.CgroupParent) })
	response, err := p.cri.RunPodSandbox(p.ctx, &criapi.RunPodSandboxRequest{Config: p.config, RuntimeHandler: handler})
	if err != nil {
		return nil, err
	}
	p.id = response.PodSandboxId
	t.Cleanup(p.remove)
	return p, nil
}

// remove stops and removes the pod. It may be called twice.
func (p *pod) remove() {
	p.t.Helper()
	if _, err := p.cri.StopPodSandbox(p.ctx, &criapi.StopPodSandboxRequest{PodSandboxId: p.id}); err != nil {
		p.t.Errorf("stopping pod %s: %v", p.id, err)
	}
	if _, err := p.cri.RemovePodSandbox(p.ctx, &criapi.RemovePodSandboxRequest{PodSandboxId: p.id}); err != nil {
		p.t.Errorf("removing pod %s: %v", p.id, err)
	}
}

// removeCgroupParent removes a pod's cgroup. On a real node the kubelet makes and removes it.
func removeCgroupParent(t testing.TB, path string) {
	t.Helper()
	for _, pattern := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/*"} {
		dirs, err := filepath.Glob(pattern + path)
		if err != nil {
			t.Fatal(err)
		}
		for _, dir := range dirs {
			var err error
			// The cgroups below it are removed with the pod, or by the delete verb of a shim that was killed.
			if !eventually(func() bool { err = os.Remove(dir); return !errors.Is(err, syscall.EBUSY) }) || err != nil && !os.IsNotExist(err) {
				t.Error(err)
			}
		}
	}
}

func (p *pod) status() *criapi.PodSandboxStatus {
	p.t.Helper()
	response, err := p.cri.PodSandboxStatus(p.ctx, &criapi.PodSandboxStatusRequest{PodSandboxId: p.id})
	if err != nil {
		p.t.Fatal(err)
	}
	return response.Status
}

// pid returns the process id of the pause container.
func (p *pod) pid() int {
	p.t.Helper()
	response, err := p.cri.PodSandboxStatus(p.ctx, &criapi.PodSandboxStatusRequest{PodSandboxId: p.id, Verbose: true})
	if err != nil {
		p.t.Fatal(err)
	}
	return pidIn(p.t, response.Info)
}

// pidIn returns the process id from the info in a verbose response of containerd.
func pidIn(t testing.TB, info map[string]string) int {
	t.Helper()
	var told struct{ Pid int }
	if err := json.Unmarshal([]byte(info["info"]), &told); err != nil || told.Pid == 0 {
		t.Fatalf("no process id in %v: %v", info, err)
	}
	return told.Pid
}

// member is a container of a pod. It is removed with the pod.
type member struct {
	*pod
	id, log string
}

// add makes a container of one of the way's programs, not started. change may be nil.
func (p *pod) add(w way, program string, change func(*criapi.ContainerConfig)) member {
	p.t.Helper()
	m, err := p.tryAdd(w, program, change)
	if err != nil {
		p.t.Fatal(err)
	}
	return m
}

func (p *pod) tryAdd(w way, program string, change func(*criapi.ContainerConfig)) (member, error) {
	name := fmt.Sprintf("%s-%d", program, lastPod.Add(1))
	config := &criapi.ContainerConfig{
		Metadata: &criapi.ContainerMetadata{Name: name},
		Image:    &criapi.ImageSpec{Image: w.image},
		Command:  w.programs[program],
		LogPath:  name + ".log",
		Linux: &criapi.LinuxContainerConfig{
			Resources:       &criapi.LinuxContainerResources{},
			SecurityContext: &criapi.LinuxContainerSecurityContext{NamespaceOptions: p.config.Linux.SecurityContext.NamespaceOptions},
		},
	}
	if change != nil {
		change(config)
	}
	response, err := p.cri.CreateContainer(p.ctx, &criapi.CreateContainerRequest{PodSandboxId: p.id, Config: config, SandboxConfig: p.config})
	return member{pod: p, id: response.GetContainerId(), log: filepath.Join(p.config.LogDirectory, config.LogPath)}, err
}

// run makes and starts a container and returns when it has printed ready.
func (p *pod) run(w way, program, ready string) member {
	p.t.Helper()
	m := p.add(w, program, nil)
	m.start()
	m.await(ready)
	return m
}

func (m member) start() {
	m.t.Helper()
	if _, err := m.cri.StartContainer(m.ctx, &criapi.StartContainerRequest{ContainerId: m.id}); err != nil {
		m.t.Fatal(err)
	}
}

// await returns when the container's log holds text.
func (m member) await(text string) {
	m.t.Helper()
	waitFor(m.t, func() bool {
		log, err := os.ReadFile(m.log)
		return err == nil && strings.Contains(string(log), text)
	}, "%q in the log of %s", text, m.id)
}

func (m member) state() *criapi.ContainerStatus {
	m.t.Helper()
	response, err := m.cri.ContainerStatus(m.ctx, &criapi.ContainerStatusRequest{ContainerId: m.id})
	if err != nil {
		m.t.Fatal(err)
	}
	return response.Status
}

func (m member) pid() int {
	m.t.Helper()
	response, err := m.cri.ContainerStatus(m.ctx, &criapi.ContainerStatusRequest{ContainerId: m.id, Verbose: true})
	if err != nil {
		m.t.Fatal(err)
	}
	return pidIn(m.t, response.Info)
}

// expectExit waits for the end of the container.
func (m member) expectExit(want int32) {
	m.t.Helper()
	waitFor(m.t, func() bool { return m.state().State == criapi.ContainerState_CONTAINER_EXITED }, "the end of %s", m.id)
	if got := m.state(); got.ExitCode != want {
		m.t.Errorf("%s ended with %d (%s, %s), want %d", m.id, got.ExitCode, got.Reason, got.Message, want)
	}
}

// stop ends the container at once, and removes it.
func (m member) remove() {
	m.t.Helper()
	if _, err := m.cri.StopContainer(m.ctx, &criapi.StopContainerRequest{ContainerId: m.id}); err != nil {
		m.t.Error(err)
	}
	if _, err := m.cri.RemoveContainer(m.ctx, &criapi.RemoveContainerRequest{ContainerId: m.id}); err != nil {
		m.t.Error(err)
	}
}

// daemons returns the processes of the named shim that serve a pod.
func (p *pod) daemons(program string) []int {
	p.t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		p.t.Fatal(err)
	}
	var found []int
	for _, file := range files {
		line, err := os.ReadFile(file)
		if err != nil {
			continue // the process has ended meanwhile
		}
		args := strings.Split(string(line), "\x00")
		if filepath.Base(args[0]) != program || !slices.Contains(args, p.id) {
			continue
		}
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(file)))
		if err != nil {
			p.t.Fatal(err)
		}
		found = append(found, pid)
	}
	return found
}

// ours returns the process id of our daemon. A program that the daemon starts has the same name for a moment.
func (p *pod) ours() int {
	p.t.Helper()
	var found []int
	if !eventually(func() bool { found = p.daemons("containerd-shim-wasm-v1"); return len(found) == 1 }) {
		p.t.Fatalf("the daemons of pod %s are %v", p.id, found)
	}
	return found[0]
}

// expectStockShim checks whether the pod has a stock shim.
func (p *pod) expectStockShim(want bool) {
	p.t.Helper()
	if found := p.daemons("containerd-shim-runc-v2"); (len(found) > 0) != want {
		p.t.Errorf("stock shims of pod %s: %v, want any: %v", p.id, found, want)
	}
}

// exec runs a command in a container and returns what it prints.
func (m member) exec(args ...string) string {
	m.t.Helper()
	response, err := m.cri.ExecSync(m.ctx, &criapi.ExecSyncRequest{ContainerId: m.id, Cmd: args, Timeout: int64(taskPatience.Seconds())})
	if err != nil {
		m.t.Fatal(err)
	}
	if response.ExitCode != 0 {
		m.t.Errorf("%q ended with %d: %s", args, response.ExitCode, response.Stderr)
	}
	return string(response.Stdout)
}

// awaitState returns when the pod is in the given state.
func (p *pod) awaitState(want criapi.PodSandboxState) {
	p.t.Helper()
	waitFor(p.t, func() bool { return p.status().State == want }, "pod %s to be %s", p.id, want)
}

// namespaceOf returns the namespace of the given kind that a process is in.
func namespaceOf(t testing.TB, pid int, kind string) string {
	t.Helper()
	name, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/%s", pid, kind))
	if err != nil {
		t.Fatal(err)
	}
	return name
}

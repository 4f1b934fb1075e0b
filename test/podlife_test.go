package test

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"

	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/wasmshim/containerd-shim-wasm/internal/testnode"
)

// shared sets the mode of the pod's pid namespace: whether its containers see each other's processes.
func shared(mode criapi.NamespaceMode) func(*criapi.PodSandboxConfig) {
	return func(c *criapi.PodSandboxConfig) {
		c.Linux.SecurityContext.NamespaceOptions.Pid = mode
		c.Linux.Sysctls = map[string]string{"net.ipv4.ip_local_port_range": "2000 3000", "kernel.shm_rmid_forced": "1"}
	}
}

// Native and Wasm containers join the namespaces of a pause container that our shim launched, in either order.
// Each can be removed while the other stays.
func TestPodMixesKinds(t *testing.T) {
	eachVersionWithPods(t, func(t *testing.T, node *testnode.Node) {
		for _, mode := range []criapi.NamespaceMode{criapi.NamespaceMode_CONTAINER, criapi.NamespaceMode_POD} {
			for _, order := range [][2]way{{asWasm, asNative}, {asNative, asWasm}} {
				t.Run(fmt.Sprintf("%s before %s, processes of the %s", order[0].name, order[1].name, mode), func(t *testing.T) {
					p := runPod(t, node, ourHandler, shared(mode))
					p.expectStockShim(false)
					first := p.run(order[0], "sleep", "sleeping")
					second := p.run(order[1], "sleep", "sleeping")
					p.expectStockShim(true)
					p.ours()
					for _, m := range []member{first, second} {
						m.expectNamespaces(mode)
					}
					native := second
					if order[0].name == asNative.name {
						native = first
					}
					native.expectPod(mode)
					first.remove()
					if state := second.state().State; state != criapi.ContainerState_CONTAINER_RUNNING {
						t.Errorf("without the first container the second is %s", state)
					}
					second.remove()
					if state := p.status().State; state != criapi.PodSandboxState_SANDBOX_READY {
						t.Errorf("without containers the pod is %s", state)
					}
				})
			}
		}
	})
}

// expectNamespaces compares a container's namespaces with those of the pause container.
func (m member) expectNamespaces(mode criapi.NamespaceMode) {
	m.t.Helper()
	pause, own := m.pod.pid(), m.pid()
	for kind, same := range map[string]bool{"ipc": true, "net": true, "uts": true, "mnt": false, "pid": mode == criapi.NamespaceMode_POD} {
		if got := namespaceOf(m.t, own, kind) == namespaceOf(m.t, pause, kind); got != same {
			m.t.Errorf("namespace %s of %s is that of the pod: %v, want %v", kind, m.id, got, same)
		}
	}
}

// expectPod checks the pod from inside a native container.
func (m member) expectPod(mode criapi.NamespaceMode) {
	m.t.Helper()
	if got := m.exec("hostname"); got != m.config.Hostname+"\n" {
		m.t.Errorf("the hostname is %q, want %q", got, m.config.Hostname)
	}
	sysctls := m.exec("cat", "/proc/sys/net/ipv4/ip_local_port_range", "/proc/sys/kernel/shm_rmid_forced", "/proc/sys/net/ipv4/ip_unprivileged_port_start")
	if got := strings.Join(strings.Fields(sysctls), " "); !strings.HasPrefix(got, "2000 3000 1 ") {
		m.t.Errorf("the pod's sysctls are %q", got)
	}
	if got := m.exec("ip", "-o", "addr", "show", "dev", "eth0"); !strings.Contains(got, m.pod.status().Network.Ip+"/") {
		m.t.Errorf("the pod's network is %q", got)
	}
	first := strings.TrimRight(m.exec("cat", "/proc/1/cmdline"), "\x00")
	if got := first == "/pause"; got != (mode == criapi.NamespaceMode_POD) {
		m.t.Errorf("process 1 is %q", first)
	}
}

// CRI reports the same about a pod and its pause container as with the stock shim.
func TestPodAnswersAreAsStock(t *testing.T) {
	eachVersionWithPods(t, func(t *testing.T, node *testnode.Node) {
		var told [2]string
		for i, handler := range []string{ourHandler, stockHandler} {
			p := runPod(t, node, handler, nil)
			p.awaitHandlers(p.pid())
			s := p.status()
			told[i] = fmt.Sprintf("%s, %d addresses, %v", s.State, 1+len(s.Network.AdditionalIps), s.Linux)
			response, err := p.cri.PodSandboxStats(p.ctx, &criapi.PodSandboxStatsRequest{PodSandboxId: p.id})
			if err != nil {
				t.Fatal(err)
			}
			l := response.Stats.Linux
			told[i] += fmt.Sprintf("; CPU %v, memory %v, %d processes, network %v",
				l.Cpu.UsageCoreNanoSeconds.GetValue() > 0, l.Memory.UsageBytes.GetValue() > 0, l.Process.GetProcessCount().GetValue(), l.Network.GetDefaultInterface() != nil)
			if s.Network.Ip == "" {
				t.Errorf("handler %q: the pod has no address", handler)
			}
		}
		if told[0] != told[1] {
			t.Errorf("CRI tells %s\nunder runc %s", told[0], told[1])
		}
	})
}

// The events of a pause container are those of a task that was created, started, killed and deleted.
func TestPodEvents(t *testing.T) {
	eachVersionWithPods(t, func(t *testing.T, node *testnode.Node) {
		events := recordEventsIn(t, node, "k8s.io")
		p := runPod(t, node, ourHandler, nil)
		p.remove()
		const want = "/tasks/create\n/tasks/start\n/tasks/exit TASK 137\n/tasks/delete 137\n"
		if got := events.ofContainer(p.id, deleted); got != want {
			t.Errorf("containerd tells\n%s\nwant\n%s", got, want)
		}
	})
}

// A pod whose shim was killed is not ready any more. Nothing of it runs, and it can be removed.
func TestKilledShimOfAPodUnderCRI(t *testing.T) {
	eachVersionWithPods(t, func(t *testing.T, node *testnode.Node) {
		for _, ways := range [][]way{{}, {asWasm}, {asWasm, asNative}} {
			t.Run(fmt.Sprintf("%d containers", len(ways)), func(t *testing.T) {
				p := runPod(t, node, ourHandler, nil)
				left := []int{p.ours(), p.pid()}
				var members []member
				for _, w := range ways {
					m := p.run(w, "sleep", "sleeping")
					members, left = append(members, m), append(left, m.pid())
				}
				left = append(left, p.daemons("containerd-shim-runc-v2")...)
				if err := syscall.Kill(left[0], syscall.SIGKILL); err != nil {
					t.Fatal(err)
				}
				p.awaitState(criapi.PodSandboxState_SANDBOX_NOTREADY)
				for _, pid := range left {
					waitFor(t, func() bool { return !alive(uint32(pid)) }, "the end of process %d", pid)
				}
				for _, m := range members {
					waitFor(t, func() bool { return m.state().State == criapi.ContainerState_CONTAINER_EXITED }, "CRI to know the end of %s", m.id)
				}
			})
		}
	})
}

// A pod whose pause process ends is not ready any more. Its containers stay as they are, unless they share its
// pid namespace.
func TestPodWhosePauseEnds(t *testing.T) {
	eachVersionWithPods(t, func(t *testing.T, node *testnode.Node) {
		for _, mode := range []criapi.NamespaceMode{criapi.NamespaceMode_CONTAINER, criapi.NamespaceMode_POD} {
			for _, w := range []way{asWasm, asNative} {
				t.Run(fmt.Sprintf("%s, processes of the %s", w.name, mode), func(t *testing.T) {
					p := runPod(t, node, ourHandler, shared(mode))
					m := p.run(w, "sleep", "sleeping")
					p.awaitHandlers(p.pid())
					if err := syscall.Kill(p.pid(), syscall.SIGTERM); err != nil {
						t.Fatal(err)
					}
					p.awaitState(criapi.PodSandboxState_SANDBOX_NOTREADY)
					if mode == criapi.NamespaceMode_POD {
						m.expectExit(137)
					} else if state := m.state().State; state != criapi.ContainerState_CONTAINER_RUNNING {
						t.Errorf("the container is %s", state)
					}
				})
			}
		}
	})
}

// Pods outlive containerd. After a restart containerd finds them unchanged.
func TestContainerdRestartFindsPods(t *testing.T) {
	for _, version := range testnode.Versions() {
		t.Run("containerd-"+version, func(t *testing.T) {
			node := testnode.New(t, testnode.Options{Version: version, CRI: true})
			importPodImages(t, node)
			node.NoLeaks(t)
			stays, ends := runPod(t, node, ourHandler, nil), runPod(t, node, ourHandler, nil)
			wasm, native := stays.run(asWasm, "sleep", "sleeping"), stays.run(asNative, "sleep", "sleeping")
			pids := []int{stays.pid(), wasm.pid(), native.pid()}
			ending := ends.pid()
			ends.awaitHandlers(ending)

			if err := node.Kill9(); err != nil {
				t.Fatal(err)
			}
			if err := syscall.Kill(ending, syscall.SIGTERM); err != nil {
				t.Fatal(err)
			}
			waitFor(t, func() bool { return !alive(uint32(ending)) }, "the end of process %d", ending)
			if err := node.Restart(t.Context()); err != nil {
				t.Fatal(err)
			}
			waitFor(t, func() bool {
				_, err := stays.cri.Version(stays.ctx, &criapi.VersionRequest{})
				return err == nil
			}, "CRI")

			stays.awaitState(criapi.PodSandboxState_SANDBOX_READY)
			if got := []int{stays.pid(), wasm.pid(), native.pid()}; !slices.Equal(got, pids) {
				t.Errorf("the processes are %v, were %v", got, pids)
			}
			if got := native.exec("cat", "/proc/1/comm"); got != "sh\n" {
				t.Errorf("process 1 is %q", got)
			}
			hello := stays.add(asWasm, "hello", nil)
			hello.start()
			hello.expectExit(0)
			ends.awaitState(criapi.PodSandboxState_SANDBOX_NOTREADY)
		})
	}
}

// The stock shim handles a pod with a user namespace. A Wasm container in such a pod is refused with one line
// that says what to do. (The kubelet stops earlier: it checks the runtime's features first.)
func TestPodWithUserNamespace(t *testing.T) {
	eachVersionWithPods(t, func(t *testing.T, node *testnode.Node) {
		// runc needs the user namespace's root to be able to enter every folder on the path to the container's
		// root.
		if err := os.Chmod(node.Dir, 0o711); err != nil {
			t.Fatal(err)
		}
		mapping := []*criapi.IDMapping{{HostId: 100000, ContainerId: 0, Length: 65536}}
		p := runPod(t, node, ourHandler, func(c *criapi.PodSandboxConfig) {
			c.Linux.SecurityContext.NamespaceOptions.UsernsOptions = &criapi.UserNamespace{Mode: criapi.NamespaceMode_POD, Uids: mapping, Gids: mapping}
		})
		p.expectStockShim(true)
		m := p.add(asWasm, "hello", nil)
		_, err := m.cri.StartContainer(m.ctx, &criapi.StartContainerRequest{ContainerId: m.id})
		const want = "linux.namespaces user is not supported in Wasm containers: run the pod with hostUsers: true"
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("it was started with %v, want %q", err, want)
		}
		native := p.run(asNative, "sleep", "sleeping")
		if got := native.exec("cat", "/proc/self/uid_map"); strings.Join(strings.Fields(got), " ") != "0 100000 65536" {
			t.Errorf("the user namespace of a native container is %q", got)
		}
	})
}

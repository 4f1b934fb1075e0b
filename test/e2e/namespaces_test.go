package e2e

import (
	"fmt"
	"os"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
)

// namespace returns the identity of a process's namespace (namespaces(7)).
func namespace(t testing.TB, pid int, name string) string {
	t.Helper()
	target, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/%s", pid, name))
	if err != nil {
		t.Fatal(err)
	}
	return target
}

func TestNamespaces(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	node := cluster.PID("kubelet")
	yes := true
	for name, test := range map[string]struct {
		set    func(*corev1.PodSpec)
		shared []string // with the node; all others are not
	}{
		"own":          {func(*corev1.PodSpec) {}, nil},
		"host-network": {func(p *corev1.PodSpec) { p.HostNetwork = true }, []string{"net", "uts"}},
		"host-pid":     {func(p *corev1.PodSpec) { p.HostPID = true }, []string{"pid"}},
		"host-ipc":     {func(p *corev1.PodSpec) { p.HostIPC = true }, []string{"ipc"}},
		"shared":       {func(p *corev1.PodSpec) { p.ShareProcessNamespace = &yes }, nil},
	} {
		both(t, name, func(t *testing.T, f flavour) {
			pod := f.pod(t, "sleep", "1000")
			test.set(&pod.Spec)
			started := s.start(t, pod)
			defer s.end(t, started)
			pid := hostPID(t, started, "main")
			var shared []string
			for _, of := range []string{"net", "uts", "pid", "ipc", "mnt"} {
				if namespace(t, pid, of) == namespace(t, node, of) {
					shared = append(shared, of)
				}
			}
			if strings.Join(shared, " ") != strings.Join(test.shared, " ") {
				t.Errorf("it shares %q with the node, want %q", shared, test.shared)
			}
			if started.Spec.HostNetwork != (started.Status.PodIP == started.Status.HostIP) {
				t.Errorf("its address is %s, the node's %s", started.Status.PodIP, started.Status.HostIP)
			}
		})
	}
	both(t, "files-of-the-pod", func(t *testing.T, f flavour) {
		pod := f.pod(t, "read", "/etc/hostname", ",", "read", "/etc/hosts", ",", "read", "/etc/resolv.conf")
		pod.Spec.Hostname = "called"
		pod.Spec.HostAliases = []corev1.HostAlias{{IP: "192.0.2.1", Hostnames: []string{"alias.example.com"}}}
		pod.Spec.DNSPolicy = corev1.DNSNone
		pod.Spec.DNSConfig = &corev1.PodDNSConfig{Nameservers: []string{"192.0.2.53"}}
		ended := s.run(t, pod)
		got := s.logs(t, ended.Name, "main")
		for _, want := range []string{"called\n", "\tcalled\n", "192.0.2.1\talias.example.com\n", "nameserver 192.0.2.53\n"} {
			if !strings.Contains(got, want) {
				t.Errorf("there is no %q in its files %q", want, got)
			}
		}
	})
	// Workers have no user namespaces of their own. The shim reports that, and the kubelet refuses
	// the pod with that reason.
	t.Run("users-refused", func(t *testing.T) {
		t.Parallel()
		no := false
		pod := asWasm.pod(t)
		pod.Spec.HostUsers = &no
		event := s.awaitEvent(t, s.create(t, pod).Name, "FailedCreatePodSandBox")
		if want := `RuntimeClass handler "wasm" does not support user namespaces`; !strings.Contains(event.Message, want) || strings.Contains(event.Message, "\n") {
			t.Errorf("the event says %q, want one line with %q", event.Message, want)
		}
	})
}

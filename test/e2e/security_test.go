package e2e

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	corev1 "k8s.io/api/core/v1"
)

// rights are fields of /proc/PID/status that show a process's privileges.
type rights map[string]string

// usable are the capabilities that are of use to a Wasm guest: those that change its permissions on files
// (CAP_CHOWN, the first, to CAP_FSETID, the fifth, capabilities(7)). Its worker has no others, whatever the pod
// says.
const usable = 0x1f

// of returns the rights that a flavour's process has of those that a pod grants.
func (r rights) of(f flavour) rights {
	if f.class == nil {
		return r
	}
	worker := maps.Clone(r)
	for name, value := range r {
		if caps, err := strconv.ParseUint(value, 16, 64); err == nil && strings.HasPrefix(name, "Cap") {
			worker[name] = fmt.Sprintf("%016x", caps&usable)
		}
	}
	return worker
}

// containerd's default capabilities, and subsets of them.
const (
	defaultCapabilities = "00000000a80425fb"
	noCapabilities      = "0000000000000000"
	netBindService      = "0000000000000400"
	netAdminToo         = "00000000a80435fb"
)

func TestSecurityContext(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	profile := localProfile(t)
	no, yes := false, true
	for name, test := range map[string]struct {
		pod       *corev1.PodSecurityContext
		container *corev1.SecurityContext
		want      rights
	}{
		"default":       {want: rights{"Uid": "0 0 0 0", "Gid": "0 0 0 0", "CapEff": defaultCapabilities, "CapBnd": defaultCapabilities}},
		"user":          {container: &corev1.SecurityContext{RunAsUser: ptr(1000), RunAsGroup: ptr(2000), RunAsNonRoot: &yes}, want: rights{"Uid": "1000 1000 1000 1000", "Gid": "2000 2000 2000 2000", "CapEff": noCapabilities, "Groups": "2000"}},
		"groups":        {pod: &corev1.PodSecurityContext{RunAsUser: ptr(1000), FSGroup: ptr(3000), SupplementalGroups: []int64{4000, 5000}}, want: rights{"Uid": "1000 1000 1000 1000", "Gid": "0 0 0 0", "Groups": "0 3000 4000 5000"}},
		"drop-all":      {container: &corev1.SecurityContext{Capabilities: &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}}}, want: rights{"CapEff": noCapabilities, "CapBnd": noCapabilities, "CapPrm": noCapabilities}},
		"drop-and-add":  {container: &corev1.SecurityContext{Capabilities: &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}, Add: []corev1.Capability{"NET_BIND_SERVICE"}}}, want: rights{"CapEff": netBindService, "CapBnd": netBindService}},
		"add":           {container: &corev1.SecurityContext{Capabilities: &corev1.Capabilities{Add: []corev1.Capability{"NET_ADMIN"}}}, want: rights{"CapEff": netAdminToo}},
		"no-escalation": {container: &corev1.SecurityContext{AllowPrivilegeEscalation: &no}, want: rights{"NoNewPrivs": "1"}},
		"seccomp-default": {container: &corev1.SecurityContext{SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault}},
			want: rights{"Seccomp": "2"}},
		"seccomp-local": {pod: &corev1.PodSecurityContext{SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeLocalhost, LocalhostProfile: &profile}},
			want: rights{"Seccomp": "2"}},
	} {
		both(t, name, func(t *testing.T, f flavour) {
			pod := f.pod(t, "sleep", "1000")
			pod.Spec.SecurityContext = test.pod
			pod.Spec.Containers[0].SecurityContext = test.container
			started := s.start(t, pod)
			defer s.end(t, started)
			var names []string
			for name := range test.want {
				names = append(names, name)
			}
			want := test.want.of(f)
			if got := processStatus(t, hostPID(t, started, "main"), names...); !maps.Equal(got, want) {
				t.Errorf("its process has %v, want %v", got, want)
			}
		})
	}
	// The profile takes effect in the guest as in any program.
	both(t, "seccomp-local-refuses", func(t *testing.T, f flavour) {
		pod := f.pod(t, "write", "/v/file", "x", ",", "mkdir", "/v/folder")
		pod.Spec.SecurityContext = &corev1.PodSecurityContext{SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeLocalhost, LocalhostProfile: &profile}}
		mountEmptyDir(pod, "/v")
		s.printed(t, s.run(t, pod), "mkdir /v/folder: Operation not permitted")
	})
	both(t, "file-owners", func(t *testing.T, f flavour) {
		there, here := onNode(t)
		pod := f.pod(t, "write", "/h/file", "x", ",", "mkdir", "/h/folder", ",", "write", "/v/file", "x", ",", "append", "/etc/passwd", "x")
		pod.Spec.SecurityContext = &corev1.PodSecurityContext{RunAsUser: ptr(1000), RunAsGroup: ptr(2000), FSGroup: ptr(3000)}
		mount(pod, corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: there}}, at("/h"))
		mountEmptyDir(pod, "/v")
		s.printed(t, s.run(t, pod), "open /etc/passwd: Permission denied")
		for _, name := range []string{"file", "folder"} {
			var stat syscall.Stat_t
			if err := syscall.Stat(filepath.Join(here, name), &stat); err != nil {
				t.Fatal(err)
			}
			if got := fmt.Sprint(stat.Uid, " ", stat.Gid); got != "1000 2000" {
				t.Errorf("%s is of %s", name, got)
			}
		}
	})
	// A guest with the group of fsGroup can write to the volumes that Kubernetes gives to that group.
	both(t, "fs-group", func(t *testing.T, f flavour) {
		pod := f.pod(t, "write", "/v/file", "x", ",", "sleep", "1000")
		pod.Spec.SecurityContext = &corev1.PodSecurityContext{RunAsUser: ptr(1000), RunAsGroup: ptr(2000), FSGroup: ptr(3000)}
		mountEmptyDir(pod, "/v")
		wroteFile(&pod.Spec.Containers[0], f, "/v/file")
		started := s.start(t, pod)
		defer s.end(t, started)
		volume := cluster.OnNode(fmt.Sprintf("/var/lib/kubelet/pods/%s/volumes/kubernetes.io~empty-dir/v0", started.UID))
		var stat syscall.Stat_t
		if err := syscall.Stat(filepath.Join(volume, "file"), &stat); err != nil {
			t.Fatal(err)
		}
		if got := fmt.Sprint(stat.Uid, " ", stat.Gid); got != "1000 3000" {
			t.Errorf("the file is of %s", got)
		}
	})
	both(t, "root-refused", func(t *testing.T, f flavour) {
		pod := f.pod(t, "sleep", "1000")
		pod.Spec.Containers[0].SecurityContext = &corev1.SecurityContext{RunAsNonRoot: &yes}
		made := s.create(t, pod)
		await(t, s.name, made.Name, "is refused", func(p *corev1.Pod) bool {
			status := findStatus(p, "main")
			return status != nil && status.State.Waiting != nil && status.State.Waiting.Reason == "CreateContainerConfigError"
		})
	})
}

func ptr(n int64) *int64 { return &n }

// wroteFile makes the container ready when it has written a file.
func wroteFile(container *corev1.Container, f flavour, path string) {
	container.ReadinessProbe = &corev1.Probe{
		ProbeHandler:  corev1.ProbeHandler{Exec: &corev1.ExecAction{Command: f.command("read", path)}},
		PeriodSeconds: 1, TimeoutSeconds: 10,
	}
}

// localProfile puts a seccomp profile that forbids making folders into the kubelet's folder, and returns its name
// for use in pods.
func localProfile(t *testing.T) string {
	t.Helper()
	text, err := json.Marshal(map[string]any{
		"defaultAction": "SCMP_ACT_ALLOW",
		"syscalls":      []any{map[string]any{"names": []string{"mkdir", "mkdirat"}, "action": "SCMP_ACT_ERRNO", "errnoRet": 1}},
	})
	if err != nil {
		t.Fatal(err)
	}
	dir := cluster.OnNode("/var/lib/kubelet/seccomp")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	name := strings.ToLower(t.Name()) + ".json"
	put(t, string(text), dir, name)
	t.Cleanup(func() {
		if err := os.Remove(filepath.Join(dir, name)); err != nil {
			t.Error(err)
		}
	})
	return name
}

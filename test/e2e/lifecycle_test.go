package e2e

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// hold is a finalizer: the API server keeps the pod after its end until the test has looked at it.
const hold = "example.com/e2e"

// deleted deletes the pod as a person does, waits until its containers have ended and returns the last state of
// the pod.
func (s *space) deleted(t testing.TB, pod *corev1.Pod) *corev1.Pod {
	t.Helper()
	pods := kube.typed.CoreV1().Pods(s.name)
	if err := pods.Delete(t.Context(), pod.Name, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	return s.ended(t, pod.Name)
}

// held creates a pod that stays visible after its deletion until the test ends.
func (s *space) held(t testing.TB, pod *corev1.Pod) *corev1.Pod {
	t.Helper()
	pod.Finalizers = append(pod.Finalizers, hold)
	made := s.create(t, pod)
	t.Cleanup(func() {
		if _, err := s.patch(t, made.Name, `{"metadata":{"finalizers":null}}`); err != nil {
			t.Error(err)
		}
	})
	return made
}

func TestShutdown(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	long := int64(600)
	// 143 is the exit code for SIGTERM. SIGKILL at the end of the grace period would give 137.
	both(t, "at-sigterm", func(t *testing.T, f flavour) {
		pod := f.pod(t, "loop")
		pod.Spec.TerminationGracePeriodSeconds = &long
		started := s.ready(t, s.held(t, pod).Name)
		if end := terminated(t, s.deleted(t, started), "main"); end.ExitCode != 143 {
			t.Errorf("it ended %s with %d, want 143", end.Reason, end.ExitCode)
		}
	})
	both(t, "exec-hooks", func(t *testing.T, f flavour) {
		there, here := onNode(t)
		pod := f.pod(t, "loop")
		pod.Spec.TerminationGracePeriodSeconds = &long // the grace period includes the hooks' time
		pod.Spec.Containers[0].Lifecycle = &corev1.Lifecycle{
			PostStart: &corev1.LifecycleHandler{Exec: &corev1.ExecAction{Command: f.command("write", "/h/started", "yes")}},
			PreStop:   &corev1.LifecycleHandler{Exec: &corev1.ExecAction{Command: f.command("read", "/h/started", ",", "write", "/h/stopping", "yes")}},
		}
		mount(pod, corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: there}}, at("/h"))
		started := s.ready(t, s.held(t, pod).Name)
		if got := get(t, here, "started"); got != "yes" {
			t.Errorf("after the start the file holds %q", got)
		}
		if end := terminated(t, s.deleted(t, started), "main"); end.ExitCode != 143 {
			t.Errorf("it ended %s with %d, want 143", end.Reason, end.ExitCode)
		}
		if got := get(t, here, "stopping"); got != "yes" {
			t.Errorf("after the end the file holds %q", got)
		}
	})
	both(t, "post-start-fails", func(t *testing.T, f flavour) {
		pod := f.pod(t, "sleep", "1000")
		pod.Spec.Containers[0].Lifecycle = &corev1.Lifecycle{
			PostStart: &corev1.LifecycleHandler{Exec: &corev1.ExecAction{Command: f.command("exit", "4")}},
		}
		ended := s.run(t, pod)
		if end := terminated(t, ended, "main"); end.ExitCode != 143 {
			t.Errorf("it ended %s with %d, want 143", end.Reason, end.ExitCode)
		}
		s.awaitEvent(t, ended.Name, "FailedPostStartHook")
	})
	// A guest cannot listen; the hook sends its request to the native sidecar that shares its network.
	both(t, "http-hooks", func(t *testing.T, f flavour) {
		there, here := onNode(t)
		pod := f.pod(t, "sleep", "1000")
		pod.Spec.TerminationGracePeriodSeconds = &long
		ask := func(path string) *corev1.LifecycleHandler {
			return &corev1.LifecycleHandler{HTTPGet: &corev1.HTTPGetAction{Path: path, Port: intstr.FromInt32(8080)}}
		}
		pod.Spec.InitContainers = []corev1.Container{webServer()}
		mount(pod, corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: there}}, at("/h"))
		pod.Spec.Containers[0].Lifecycle = &corev1.Lifecycle{PostStart: ask("/started"), PreStop: ask("/stopping")}
		s.deleted(t, s.ready(t, s.held(t, pod).Name))
		if log := get(t, here, "log"); !strings.Contains(log, "url:/started") || !strings.Contains(log, "url:/stopping") {
			t.Errorf("the server was asked for: %s", log)
		}
	})
}

// webServer is a native sidecar that serves HTTP on port 8080 and logs requests in /h/log.
func webServer() corev1.Container {
	always := corev1.ContainerRestartPolicyAlways
	return corev1.Container{
		Name: "server", Image: nativeImage, RestartPolicy: &always,
		// The shell is the container's first process. A signal ends that process only if it has a handler.
		Command: []string{"sh", "-c", "trap 'exit' TERM; mkdir /www; cd /www && touch index.html started stopping; httpd -f -vv -p 8080 -h /www 2> /h/log & wait"},
		StartupProbe: &corev1.Probe{
			ProbeHandler:  corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Path: "/", Port: intstr.FromInt32(8080)}},
			PeriodSeconds: 1, FailureThreshold: 60,
		},
	}
}

func TestProbes(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	exec := func(command []string) *corev1.Probe {
		return &corev1.Probe{
			ProbeHandler:  corev1.ProbeHandler{Exec: &corev1.ExecAction{Command: command}},
			PeriodSeconds: 1, FailureThreshold: 1, TimeoutSeconds: 10,
		}
	}
	restarted := func(p *corev1.Pod) bool {
		status := findStatus(p, "main")
		return status != nil && status.RestartCount > 0
	}
	both(t, "pass", func(t *testing.T, f flavour) {
		pod := f.pod(t, "sleep", "0.5", ",", "write", "/v/here", "yes", ",", "sleep", "1000")
		mountEmptyDir(pod, "/v")
		main := &pod.Spec.Containers[0]
		main.StartupProbe, main.ReadinessProbe, main.LivenessProbe = exec(f.command("read", "/v/here")), exec(f.command("read", "/v/here")), exec(f.command("pwd"))
		main.StartupProbe.FailureThreshold = 60
		started := s.start(t, pod)
		defer s.end(t, started)
		if status := containerStatus(t, started, "main"); status.RestartCount != 0 || !*status.Started {
			t.Errorf("it has %+v", status)
		}
	})
	both(t, "readiness-goes", func(t *testing.T, f flavour) {
		pod := f.pod(t, "write", "/v/here", "yes", ",", "await", "/v/leave", ",", "rm", "/v/here", ",", "sleep", "1000")
		mountEmptyDir(pod, "/v")
		pod.Spec.Containers[0].ReadinessProbe = exec(f.command("read", "/v/here"))
		started := s.start(t, pod)
		defer s.end(t, started)
		s.exec(t, started.Name, "main", f.command("write", "/v/leave", "yes")...)
		await(t, s.name, started.Name, "is not ready", func(p *corev1.Pod) bool { return !containerStatus(t, p, "main").Ready })
	})
	for name, set := range map[string]func(*corev1.Container, *corev1.Probe){
		"liveness-fails": func(c *corev1.Container, p *corev1.Probe) { c.LivenessProbe = p },
		"startup-fails":  func(c *corev1.Container, p *corev1.Probe) { c.StartupProbe = p },
	} {
		both(t, name, func(t *testing.T, f flavour) {
			pod := f.pod(t, "sleep", "1000")
			pod.Spec.RestartPolicy = corev1.RestartPolicyAlways
			set(&pod.Spec.Containers[0], exec(f.command("exit", "3")))
			made := s.create(t, pod)
			defer s.end(t, made)
			await(t, s.name, made.Name, "was restarted", restarted)
			s.awaitEvent(t, made.Name, "Unhealthy")
		})
	}
	// A hook that hangs is ended when its time is over.
	both(t, "timeout", func(t *testing.T, f flavour) {
		pod := f.pod(t, "sleep", "1000")
		pod.Spec.RestartPolicy = corev1.RestartPolicyAlways
		hangs := exec(f.command("sleep", "1000"))
		hangs.TimeoutSeconds = 1
		pod.Spec.Containers[0].LivenessProbe = hangs
		made := s.create(t, pod)
		defer s.end(t, made)
		await(t, s.name, made.Name, "was restarted", restarted)
	})
}

package e2e

import (
	"bufio"
	"fmt"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
)

func TestLogs(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	both(t, "follow", func(t *testing.T, f flavour) {
		pod := f.pod(t, "say", "one", ",", "await", "/v/go", ",", "say", "two")
		mountEmptyDir(pod, "/v")
		started := s.start(t, pod)
		stream, err := kube.typed.CoreV1().Pods(s.name).GetLogs(started.Name, &corev1.PodLogOptions{Follow: true}).Stream(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer stream.Close()
		lines := bufio.NewScanner(stream)
		if !lines.Scan() || lines.Text() != "one" {
			t.Fatalf("the first line is %q, %v", lines.Text(), lines.Err())
		}
		s.exec(t, started.Name, "main", f.command("write", "/v/go", "yes")...)
		if !lines.Scan() || lines.Text() != "two" {
			t.Errorf("the second line is %q, %v", lines.Text(), lines.Err())
		}
		if lines.Scan() || lines.Err() != nil {
			t.Errorf("there is more: %q, %v", lines.Text(), lines.Err())
		}
	})
	// The text is longer than any pipe or buffer on its way.
	both(t, "long", func(t *testing.T, f flavour) {
		const count = 20000
		ended := s.run(t, f.pod(t, "lines", fmt.Sprint(count)))
		var want strings.Builder
		for i := range count {
			fmt.Fprintf(&want, "line %d\n", i+1)
		}
		if got := s.logs(t, ended.Name, "main"); got != want.String() {
			t.Errorf("%d bytes of log are not the %d that it wrote", len(got), want.Len())
		}
	})
	both(t, "previous", func(t *testing.T, f flavour) {
		pod := f.pod(t, "tries", "/v/tries", "2", ",", "sleep", "1000")
		pod.Spec.RestartPolicy = corev1.RestartPolicyAlways
		mountEmptyDir(pod, "/v")
		made := s.create(t, pod)
		defer s.end(t, made)
		await(t, s.name, made.Name, "runs again", func(p *corev1.Pod) bool {
			status := findStatus(p, "main")
			return status != nil && status.RestartCount == 1 && status.State.Running != nil
		})
		got, err := s.readLogs(t.Context(), made.Name, corev1.PodLogOptions{Container: "main", Previous: true})
		if err != nil || got != "try 1\n" {
			t.Errorf("it printed %q before, %v", got, err)
		}
	})
}

func TestExec(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	both(t, "exec", func(t *testing.T, f flavour) {
		pod := f.pod(t, "write", "/v/ready", "yes", ",", "sleep", "1000")
		mountEmptyDir(pod, "/v")
		wroteFile(&pod.Spec.Containers[0], f, "/v/ready")
		pod.Spec.Containers[0].Env = []corev1.EnvVar{{Name: "OWN", Value: "kept"}}
		started := s.start(t, pod)
		defer s.end(t, started)
		for _, test := range []struct {
			command []string
			want    result
		}{
			{f.command("say", "hello"), result{stdout: "hello\n"}},
			{f.command("read", "/v/ready"), result{stdout: "yes"}},
			{f.command("read", "/missing"), result{stderr: "open /missing: No such file or directory\ncommand terminated with exit code 1\n", code: 1}},
			{f.command("exit", "42"), result{stderr: "command terminated with exit code 42\n", code: 42}},
		} {
			if got := s.exec(t, started.Name, "main", test.command...); got != test.want {
				t.Errorf("%q gave %+v, want %+v", test.command, got, test.want)
			}
		}
		if got := s.exec(t, started.Name, "main", f.command("env")...); !strings.Contains(got.stdout, "OWN=kept\n") {
			t.Errorf("its environment lacks the container's: %+v", got)
		}
		text := strings.Repeat("all sorts of bytes \u00e9\r\n\t", 20000)
		in := append([]string{"exec", "-i", started.Name, "--"}, f.command("cat")...)
		if got := s.kubectl(t, strings.NewReader(text), in...); got != (result{stdout: text}) {
			t.Errorf("%d bytes came back as %d, code %d: %s", len(text), len(got.stdout), got.code, got.stderr)
		}
	})
	both(t, "terminal", func(t *testing.T, f flavour) {
		started := s.start(t, f.pod(t, "sleep", "1000"))
		defer s.end(t, started)
		got := s.kubectlOnTerminal(t, append([]string{"exec", "-it", started.Name, "--"}, f.command("stat", "/dev/tty", ",", "say", "hello")...)...)
		if got.code != 0 || got.stdout != "character-device 0\r\nhello\r\n" {
			t.Errorf("on a terminal it gave %+v", got)
		}
	})
	t.Run("native-refused", func(t *testing.T) {
		t.Parallel()
		started := s.start(t, asWasm.pod(t, "sleep", "1000"))
		defer s.end(t, started)
		got := s.exec(t, started.Name, "main", "/bin/sh", "-c", "true")
		if got.code == 0 || !strings.Contains(got.stderr, "/bin/sh") || !strings.Contains(got.stderr, "native") {
			t.Errorf("it was not refused in words: %+v", got)
		}
	})
	both(t, "attach", func(t *testing.T, f flavour) {
		pod := f.pod(t, "cat")
		pod.Spec.Containers[0].Stdin, pod.Spec.Containers[0].StdinOnce = true, true
		started := s.start(t, pod)
		if got := s.kubectl(t, strings.NewReader("typed\n"), "attach", "-i", started.Name); got.code != 0 || !strings.Contains(got.stdout, "typed\n") {
			t.Errorf("attached, it gave %+v", got)
		}
		if ended := s.ended(t, started.Name); ended.Status.Phase != corev1.PodSucceeded {
			t.Errorf("the pod is %s", ended.Status.Phase)
		}
	})
	both(t, "tty", func(t *testing.T, f flavour) {
		pod := f.pod(t, "stat", "/dev/tty", ",", "say", "hello")
		pod.Spec.Containers[0].TTY = true
		s.succeeds(t, pod, "character-device 0\nhello\n")
	})
}

// A Wasm container has no shell. A debug container beside it sees its network, and also its processes
// if kubectl names a target container.
func TestDebug(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	debugged := func(t *testing.T, f flavour, command []string, flags ...string) string {
		t.Helper()
		started := s.start(t, f.pod(t, "sleep", "1000"))
		defer s.end(t, started)
		args := append([]string{"debug", started.Name, "--image", nativeImage, "--container", "debugger", "--profile", "general"}, flags...)
		if got := s.kubectl(t, nil, append(append(args, "--"), command...)...); got.code != 0 {
			t.Fatalf("kubectl debug: %+v", got)
		}
		done := await(t, s.name, started.Name, "was debugged", func(p *corev1.Pod) bool {
			status := findStatus(p, "debugger")
			return status != nil && status.State.Terminated != nil
		})
		if end := terminated(t, done, "debugger"); end.ExitCode != 0 {
			t.Errorf("the debugger ended with %d: %s", end.ExitCode, end.Message)
		}
		return s.logs(t, started.Name, "debugger")
	}
	both(t, "beside", func(t *testing.T, f flavour) {
		if got := debugged(t, f, asNative.command("say", "here")); got != "here\n" {
			t.Errorf("it printed %q", got)
		}
	})
	both(t, "in-its-processes", func(t *testing.T, f flavour) {
		// The container's own process is the first one in its namespace; the debugger is another.
		file := "/proc/1/root" + f.root + f.program
		if got := debugged(t, f, []string{"ls", file}, "--target", "main"); got != file+"\n" {
			t.Errorf("it sees %q", got)
		}
	})
}

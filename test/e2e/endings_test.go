package e2e

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestPodEnds(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	t.Run("hello", func(t *testing.T) {
		t.Parallel()
		pod := asWasm.pod(t)
		pod.Spec.Containers[0].Image = helloImage
		s.succeeds(t, pod, "hello from C\n")
	})
	both(t, "completed", func(t *testing.T, f flavour) {
		end := terminated(t, s.succeeds(t, f.pod(t, "say", "done"), "done\n"), "main")
		if end.Reason != "Completed" || end.ExitCode != 0 {
			t.Errorf("it ended %s with %d", end.Reason, end.ExitCode)
		}
	})
	both(t, "command", func(t *testing.T, f flavour) {
		pod := f.pod(t, "$(GREETING)", "$$(GREETING)")
		pod.Spec.Containers[0].Command = f.command("args")
		pod.Spec.Containers[0].Env = []corev1.EnvVar{{Name: "GREETING", Value: "hello"}}
		s.succeeds(t, pod, "hello\n$(GREETING)\n")
	})
	both(t, "message-of-log", func(t *testing.T, f flavour) {
		pod := f.pod(t, "lines", "100", ",", "exit", "42")
		pod.Spec.Containers[0].TerminationMessagePolicy = corev1.TerminationMessageFallbackToLogsOnError
		checkFailed(t, s.run(t, pod), 42, func(message string) bool {
			return strings.HasSuffix(message, "line 99\nline 100\n")
		})
	})
	both(t, "message-file", func(t *testing.T, f flavour) {
		pod := f.pod(t, "write", "/dev/own/message", "why it failed", ",", "exit", "7")
		pod.Spec.Containers[0].TerminationMessagePath = "/dev/own/message"
		checkFailed(t, s.run(t, pod), 7, func(message string) bool { return message == "why it failed" })
	})
	both(t, "message-default-file", func(t *testing.T, f flavour) {
		pod := f.pod(t, "write", corev1.TerminationMessagePathDefault, "said", ",", "exit", "1")
		checkFailed(t, s.run(t, pod), 1, func(message string) bool { return message == "said" })
	})
	both(t, "missing-command", func(t *testing.T, f flavour) {
		pod := f.pod(t)
		pod.Spec.Containers[0].Command = []string{"/missing" + strings.TrimPrefix(f.program, "/app")}
		end := terminated(t, s.run(t, pod), "main")
		if end.Reason != "StartError" || end.ExitCode != 128 || !strings.Contains(end.Message, "/missing") {
			t.Errorf("it ended %s with %d: %q", end.Reason, end.ExitCode, end.Message)
		}
	})
	both(t, "deadline", func(t *testing.T, f flavour) {
		started := s.start(t, f.pod(t, "loop"))
		eventually(t, "the program loops", func(ctx context.Context) error {
			log, err := s.readLogs(ctx, started.Name, corev1.PodLogOptions{Container: "main"})
			if err == nil && !strings.Contains(log, "looping") {
				err = fmt.Errorf("it printed %q", log)
			}
			return err
		})
		// The deadline passes only now: the steps before may have taken long.
		if _, err := s.patch(t, started.Name, `{"spec":{"activeDeadlineSeconds":1}}`); err != nil {
			t.Fatal(err)
		}
		ended := s.ended(t, started.Name)
		if ended.Status.Reason != "DeadlineExceeded" {
			t.Errorf("the pod is %s: %s", ended.Status.Phase, ended.Status.Reason)
		}
		// The phase is reported before the container has ended.
		ended = await(t, s.name, ended.Name, "has ended its container", func(p *corev1.Pod) bool {
			status := findStatus(p, "main")
			return status != nil && status.State.Terminated != nil
		})
		if end := terminated(t, ended, "main"); end.ExitCode != 143 {
			t.Errorf("it ended with %d, want 143", end.ExitCode)
		}
	})
}

func checkFailed(t testing.TB, pod *corev1.Pod, code int32, message func(string) bool) {
	t.Helper()
	if pod.Status.Phase != corev1.PodFailed {
		t.Errorf("the pod is %s", pod.Status.Phase)
	}
	end := terminated(t, pod, "main")
	if end.Reason != "Error" || end.ExitCode != code {
		t.Errorf("it ended %s with %d, want %d", end.Reason, end.ExitCode, code)
	}
	if !message(end.Message) {
		t.Errorf("it left the message %q", end.Message)
	}
}

func TestRestarts(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	both(t, "on-failure", func(t *testing.T, f flavour) {
		pod := f.pod(t, "tries", "/v/tries", "2")
		pod.Spec.RestartPolicy = corev1.RestartPolicyOnFailure
		mountEmptyDir(pod, "/v")
		ended := s.succeeds(t, pod, "try 2\n")
		status := containerStatus(t, ended, "main")
		if status.RestartCount != 1 {
			t.Errorf("it was restarted %d times, want once", status.RestartCount)
		}
	})
	both(t, "always", func(t *testing.T, f flavour) {
		pod := f.pod(t, "say", "once more")
		pod.Spec.RestartPolicy = corev1.RestartPolicyAlways
		made := s.create(t, pod)
		await(t, s.name, made.Name, "was restarted twice", func(p *corev1.Pod) bool {
			status := findStatus(p, "main")
			return status != nil && status.RestartCount >= 2 && status.LastTerminationState.Terminated != nil &&
				status.LastTerminationState.Terminated.ExitCode == 0
		})
	})
}

func TestJobs(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	both(t, "parallel", func(t *testing.T, f flavour) {
		ten := int32(10)
		job := batchv1.JobSpec{Parallelism: &ten, Completions: &ten, Template: template(f.pod(t, "say", "done"))}
		s.reported(t, metav1.ListOptions{LabelSelector: "job-name=" + f.name})
		create(t, s.name, &batchv1.Job{ObjectMeta: metav1.ObjectMeta{Name: f.name}, Spec: job})
		await(t, s.name, f.name, "is complete", func(j *batchv1.Job) bool { return j.Status.Succeeded == ten })
	})
	both(t, "cron", func(t *testing.T, f flavour) {
		name := "cron-" + f.name
		create(t, s.name, &batchv1.CronJob{
			ObjectMeta: metav1.ObjectMeta{Name: name},
			Spec: batchv1.CronJobSpec{
				Schedule:    "* * * * *",
				JobTemplate: batchv1.JobTemplateSpec{Spec: batchv1.JobSpec{Template: template(f.pod(t, "say", "done"))}},
			},
		})
		awaitObject(t, batchv1.SchemeGroupVersion.WithKind("CronJob"), s.name, name, "was successful", within+time.Minute, func(u *anyObject) bool {
			return typed[batchv1.CronJob](t, u).Status.LastSuccessfulTime != nil
		})
	})
	both(t, "failed", func(t *testing.T, f flavour) {
		name := "failed-" + f.name
		retries := int32(1)
		job := batchv1.JobSpec{BackoffLimit: &retries, Template: template(f.pod(t, "exit", "5"))}
		s.reported(t, metav1.ListOptions{LabelSelector: "job-name=" + name})
		create(t, s.name, &batchv1.Job{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: job})
		await(t, s.name, name, "has failed", func(j *batchv1.Job) bool { return j.Status.Failed == 2 })
	})
}

func template(pod *corev1.Pod) corev1.PodTemplateSpec { return corev1.PodTemplateSpec{Spec: pod.Spec} }

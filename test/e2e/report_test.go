package e2e

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"
)

const (
	shownLogLines = 20 // of each container
	shownNodeLog  = 40 // of each part of the node, for each pod
)

// reported shows, if the test fails, the state of the pods that the options select: status, events, logs, and the
// lines about them in the logs of containerd and the kubelet. Call it before the pods are made.
func (s *space) reported(t testing.TB, options metav1.ListOptions) {
	t.Cleanup(func() {
		if t.Failed() {
			s.report(context.WithoutCancel(t.Context()), t, options)
		}
	})
}

func (s *space) report(ctx context.Context, t testing.TB, options metav1.ListOptions) {
	t.Helper()
	pods, err := kube.typed.CoreV1().Pods(s.name).List(ctx, options)
	if err != nil {
		t.Logf("listing the pods of %s: %v", s.name, err)
		return
	}
	for _, pod := range pods.Items {
		t.Log(s.describe(ctx, &pod))
	}
}

func (s *space) describe(ctx context.Context, pod *corev1.Pod) string {
	var out strings.Builder
	text, err := yaml.Marshal(pod.Status)
	fmt.Fprintf(&out, "--- pod %s/%s, %s\n%s%s", pod.Namespace, pod.Name, pod.UID, text, note(err))
	events, err := s.events(ctx, pod.Name)
	fmt.Fprintf(&out, "--- events\n%s%s", strings.Join(events, "\n"), note(err))
	for _, container := range allContainers(pod) {
		lines := int64(shownLogLines)
		text, err := s.readLogs(ctx, pod.Name, corev1.PodLogOptions{Container: container, TailLines: &lines})
		fmt.Fprintf(&out, "\n--- log of %s\n%s%s", container, text, note(err))
	}
	ids := []string{string(pod.UID), pod.Name}
	for _, container := range slices.Concat(pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses, pod.Status.EphemeralContainerStatuses) {
		if _, id, ok := strings.Cut(container.ContainerID, "://"); ok {
			ids = append(ids, id)
		}
	}
	for _, part := range []string{"containerd", "kubelet"} {
		fmt.Fprintf(&out, "\n--- %s on it\n%s", part, linesWith(cluster.Log(part), ids, shownNodeLog))
	}
	return out.String()
}

// events returns a line for each event of an object, oldest first.
func (s *space) events(ctx context.Context, name string) ([]string, error) {
	list, err := kube.typed.CoreV1().Events(s.name).List(ctx, metav1.ListOptions{FieldSelector: "involvedObject.name=" + name})
	if err != nil {
		return nil, err
	}
	slices.SortFunc(list.Items, func(a, b corev1.Event) int { return a.CreationTimestamp.Compare(b.CreationTimestamp.Time) })
	var lines []string
	for _, event := range list.Items {
		lines = append(lines, fmt.Sprintf("%s %s: %s", event.Type, event.Reason, event.Message))
	}
	return lines, nil
}

func allContainers(pod *corev1.Pod) []string {
	var names []string
	for _, container := range slices.Concat(pod.Spec.InitContainers, pod.Spec.Containers) {
		names = append(names, container.Name)
	}
	for _, container := range pod.Spec.EphemeralContainers {
		names = append(names, container.Name)
	}
	return names
}

// linesWith returns the last lines of a file that contain one of the words.
func linesWith(path string, words []string, count int) string {
	text, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	var found []string
	for line := range strings.Lines(string(text)) {
		if slices.ContainsFunc(words, func(word string) bool { return strings.Contains(line, word) }) {
			found = append(found, shorten(strings.TrimSpace(line)))
		}
	}
	return strings.Join(found[max(0, len(found)-count):], "\n")
}

// shorten removes the middle of a long line: containerd logs whole specifications.
func shorten(line string) string {
	const ends = 250
	if len(line) <= 2*ends {
		return line
	}
	return line[:ends] + " … " + line[len(line)-ends:]
}

// note is an error that is added to a report and does not end it.
func note(err error) string {
	if err == nil {
		return ""
	}
	return fmt.Sprintf("(%v)\n", err)
}

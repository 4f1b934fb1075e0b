package main

import (
	"context"
	"fmt"
	"sync"
	"time"

	eventsapi "github.com/containerd/containerd/api/events"
	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/typeurl/v2"
	corev1 "k8s.io/api/core/v1"
)

// taskTime has the start and the end of a container's process, as its shim reported them to
// containerd.
type taskTime struct{ started, ended time.Time }

// taskTimes collects the times of tasks from containerd's events.
type taskTimes struct {
	containerd *client.Client
	stop       context.CancelFunc

	mu    sync.Mutex
	times map[string]taskTime // by container id
}

func recordTasks(ctx context.Context, containerd *client.Client) *taskTimes {
	ctx, stop := context.WithCancel(ctx)
	r := &taskTimes{containerd: containerd, stop: stop, times: map[string]taskTime{}}
	envelopes, _ := containerd.Subscribe(ctx, `topic=="/tasks/start"`, `topic=="/tasks/exit"`)
	go func() {
		for {
			select {
			case envelope := <-envelopes:
				event, err := typeurl.UnmarshalAny(envelope.Event)
				if err == nil {
					r.note(event, envelope.Timestamp)
				}
			case <-ctx.Done():
				return
			}
		}
	}()
	return r
}

func (r *taskTimes) note(event any, at time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch e := event.(type) {
	case *eventsapi.TaskStart:
		r.times[e.ContainerID] = taskTime{started: at}
	case *eventsapi.TaskExit:
		if e.ID == e.ContainerID {
			r.times[e.ContainerID] = taskTime{started: r.times[e.ContainerID].started, ended: at}
		}
	}
}

// ofPod returns the times of a pod's containers by their names; the pause container's is empty.
func (r *taskTimes) ofPod(ctx context.Context, pod *corev1.Pod) (map[string]taskTime, error) {
	ids, err := podContainers(ctx, r.containerd, pod)
	if err != nil {
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	found := map[string]taskTime{}
	for container, id := range ids {
		found[container] = r.times[id]
	}
	return found, nil
}

// podContainers returns the ids of a pod's containers by their names; the pause container's name is
// empty. The labels are those of containerd's CRI plugin.
func podContainers(ctx context.Context, containerd *client.Client, pod *corev1.Pod) (map[string]string, error) {
	filter := fmt.Sprintf(`labels."io.kubernetes.pod.uid"==%q`, pod.UID)
	containers, err := containerd.ContainerService().List(namespaces.WithNamespace(ctx, "k8s.io"), filter)
	if err != nil {
		return nil, err
	}
	ids := map[string]string{}
	for _, c := range containers {
		ids[c.Labels["io.kubernetes.container.name"]] = c.ID
	}
	return ids, nil
}

func (r *taskTimes) close() {
	r.stop()
	r.containerd.Close()
}

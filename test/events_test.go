package test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"syscall"
	"testing"

	eventtypes "github.com/containerd/containerd/api/events"
	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/events"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/containerd/v2/pkg/oci"
	"github.com/containerd/typeurl/v2"

	"github.com/wasmshim/containerd-shim-wasm/internal/testnode"
)

// The events with which the events of a task may end.
const (
	ended   = "/tasks/exit TASK "
	deleted = "/tasks/delete"
	oom     = "/tasks/oom"
)

// eventRecord holds the events that a containerd has published about tasks since the record began.
type eventRecord struct {
	t    testing.TB
	mu   sync.Mutex
	seen []*events.Envelope
}

// recordEvents returns when the subscription works: it has received a test event.
func recordEvents(t testing.TB, node *testnode.Node) *eventRecord {
	t.Helper()
	return recordEventsIn(t, node, node.Namespace)
}

// recordEventsIn is recordEvents for one of containerd's namespaces.
func recordEventsIn(t testing.TB, node *testnode.Node, namespace string) *eventRecord {
	t.Helper()
	const marker = "/test/recording"
	ctx, cancel := context.WithCancel(namespaces.WithNamespace(context.Background(), namespace))
	t.Cleanup(cancel)
	c := node.Client(t)
	told, lost := c.Subscribe(ctx, `topic~="^/tasks/"`, fmt.Sprintf("topic==%q", marker))
	r := &eventRecord{t: t}
	go func() {
		for {
			select {
			case event := <-told:
				r.mu.Lock()
				r.seen = append(r.seen, event)
				r.mu.Unlock()
			case <-lost:
				return
			}
		}
	}()
	waitFor(t, func() bool {
		if err := c.EventService().Publish(ctx, marker, &eventtypes.NamespaceCreate{Name: "recording"}); err != nil {
			t.Fatal(err)
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		return len(r.seen) > 0
	}, "the subscription to events")
	return r
}

// of waits for an event line that begins with last, and returns the task's events, one event a line: the topic,
// TASK or EXEC (whether the event is about the task or an exec), and the exit code.
func (r *eventRecord) of(k *task, last string) string {
	r.t.Helper()
	return r.ofContainer(k.container.ID(), last)
}

func (r *eventRecord) ofContainer(id, last string) string {
	r.t.Helper()
	var story string
	waitFor(r.t, func() bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		story = ""
		for _, envelope := range r.seen {
			story += describe(r.t, envelope, id)
		}
		return strings.Contains("\n"+story, "\n"+last)
	}, "%s among the events", last)
	return story
}

// describe returns one line, or "" for an event of another task.
func describe(t testing.TB, envelope *events.Envelope, id string) string {
	t.Helper()
	event, err := typeurl.UnmarshalAny(envelope.Event)
	if err != nil {
		t.Error(err)
		return ""
	}
	of, detail := "", ""
	switch e := event.(type) {
	case *eventtypes.TaskCreate:
		of = e.ContainerID
	case *eventtypes.TaskStart:
		of = e.ContainerID
	case *eventtypes.TaskOOM:
		of = e.ContainerID
	case *eventtypes.TaskPaused:
		of = e.ContainerID
	case *eventtypes.TaskResumed:
		of = e.ContainerID
	case *eventtypes.TaskExecAdded:
		of, detail = e.ContainerID, " EXEC"
	case *eventtypes.TaskExecStarted:
		of, detail = e.ContainerID, " EXEC"
	case *eventtypes.TaskExit:
		who := "EXEC"
		if e.ID == id {
			who = "TASK"
		}
		of, detail = e.ContainerID, fmt.Sprintf(" %s %d", who, e.ExitStatus)
	case *eventtypes.TaskDelete:
		of, detail = e.ContainerID, fmt.Sprintf(" %d", e.ExitStatus)
	}
	if of != id {
		return ""
	}
	return envelope.Topic + detail + "\n"
}

// scenarios are sequences of calls. Every way must publish the same events for them.
var scenarios = map[string]struct {
	play func(t *testing.T, node *testnode.Node, w way, opts ...oci.SpecOpts) *task
	want string
}{
	"by itself": {
		play: func(t *testing.T, node *testnode.Node, w way, opts ...oci.SpecOpts) *task {
			k := w.create(t, node, "exit", opts...)
			k.start()
			k.expectCode(42)
			return k
		},
		want: "/tasks/create\n/tasks/start\n/tasks/exit TASK 42\n/tasks/delete 42\n",
	},
	"never started": {
		play: func(t *testing.T, node *testnode.Node, w way, opts ...oci.SpecOpts) *task {
			k := w.create(t, node, "sleep", opts...)
			kill(t, k, syscall.SIGKILL)
			k.expectCode(137)
			return k
		},
		want: "/tasks/create\n/tasks/exit TASK 137\n/tasks/delete 137\n",
	},
	"full life": {
		play: func(t *testing.T, node *testnode.Node, w way, opts ...oci.SpecOpts) *task {
			k := w.run(t, node, "sleep", "sleeping", opts...)
			if code, _ := k.finish(k.exec(w.programs["exit"], nil)); code != 42 {
				t.Errorf("exec ended with %d", code)
			}
			if err := k.Pause(k.ctx); err != nil {
				t.Error(err)
			}
			k.expectStatus(client.Paused)
			if err := k.Resume(k.ctx); err != nil {
				t.Error(err)
			}
			k.expectStatus(client.Running)
			kill(t, k, syscall.SIGTERM)
			k.expectCode(143)
			return k
		},
		want: "/tasks/create\n/tasks/start\n/tasks/exec-added EXEC\n/tasks/exec-started EXEC\n/tasks/exit EXEC 42\n" +
			"/tasks/paused\n/tasks/resumed\n/tasks/exit TASK 143\n/tasks/delete 143\n",
	},
	"exec outlived": {
		play: func(t *testing.T, node *testnode.Node, w way, opts ...oci.SpecOpts) *task {
			k := w.run(t, node, "sleep", "sleeping", opts...)
			e := k.exec(w.programs["loop"], nil)
			e.output.await(t, "looping")
			kill(t, k, syscall.SIGKILL)
			k.expectCode(137)
			if code, _ := k.finish(e); code != 137 {
				t.Errorf("exec ended with %d", code)
			}
			return k
		},
		want: "/tasks/create\n/tasks/start\n/tasks/exec-added EXEC\n/tasks/exec-started EXEC\n/tasks/exit EXEC 137\n" +
			"/tasks/exit TASK 137\n/tasks/delete 137\n",
	},
	"out of memory": {
		play: func(t *testing.T, node *testnode.Node, w way, opts ...oci.SpecOpts) *task {
			k := w.create(t, node, "fill", append(opts, oci.WithMemoryLimit(limitedMemory), fillMount)...)
			k.start()
			k.expectCode(137)
			return k
		},
		want: "/tasks/create\n/tasks/start\n/tasks/oom\n/tasks/exit TASK 137\n/tasks/delete 137\n",
	},
}

func kill(t testing.TB, k *task, signal syscall.Signal) {
	t.Helper()
	if err := k.Kill(k.ctx, signal); err != nil {
		t.Fatal(err)
	}
}

// companion keeps the stock shim alive after the task's delete. When its last task is deleted, the stock shim
// sometimes exits before it has published the event (its Shutdown does not wait for events). Our shim must
// never do that, so Wasm tasks get no companion.
func companion(t *testing.T, node *testnode.Node, w way) []oci.SpecOpts {
	if w.name == asWasm.name {
		return nil
	}
	leader := w.run(t, node, "sleep", "sleeping", leadingPod)
	return []oci.SpecOpts{inPod(leader.container.ID())}
}

// oomBeforeExit moves the event of an out-of-memory kill before the exit event. In the stock shim the two
// events come from different goroutines (its epoller, its reaper), so their order varies. Our shim publishes
// them in this order.
func oomBeforeExit(story string) string {
	before, after, ok := strings.Cut(story, oom+"\n")
	if !ok {
		return story
	}
	story = before + after
	at := strings.Index(story, ended)
	if at < 0 {
		return story
	}
	return story[:at] + oom + "\n" + story[at:]
}

// The wanted events are those of the stock runtime. The test runs the stock runtime too, to prove that.
func TestEventsAreThoseOfTheStockRuntime(t *testing.T) {
	eachVersionWithTasks(t, func(t *testing.T, node *testnode.Node) {
		for name, scenario := range scenarios {
			for _, w := range []way{asStock, asNative, asWasm} {
				t.Run(name+" as "+w.name, func(t *testing.T) {
					events := recordEvents(t, node)
					k := scenario.play(t, node, w, companion(t, node, w)...)
					events.of(k, ended) // else the stock shim of 2.4 may publish the delete first
					if strings.Contains(scenario.want, oom) {
						events.of(k, oom) // the stock shim does not publish it after the delete
					}
					if _, err := k.Delete(k.ctx); err != nil {
						t.Error(err)
					}
					got := events.of(k, deleted)
					if w.name != asWasm.name {
						got = oomBeforeExit(got)
					}
					if got != scenario.want {
						t.Errorf("got events\n%swant\n%s", got, scenario.want)
					}
				})
			}
		}
	})
}

// The shim publishes an out-of-memory kill however soon the task is deleted. The kernel's counter disappears
// with the cgroup.
func TestOOMIsToldOfATaskDeletedAtOnce(t *testing.T) {
	eachVersionWithTasks(t, func(t *testing.T, node *testnode.Node) {
		events := recordEvents(t, node)
		for range 20 {
			k := scenarios["out of memory"].play(t, node, asNative, asPause)
			if _, err := k.Delete(k.ctx); err != nil {
				t.Fatal(err)
			}
			if got := events.of(k, deleted); !strings.Contains(got, oom) {
				t.Errorf("it tells\n%s", got)
			}
		}
	})
}

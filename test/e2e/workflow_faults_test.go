package e2e

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/wasmshim/containerd-shim-wasm/internal/testcluster"
)

var (
	faultySteps = flag.Int("faults", 0, "run so many steps of workflows while parts of the node are killed at random; 0 leaves that test out")
	faultySeed  = flag.Uint64("faults-seed", 0, "which parts are killed, and when; 0 takes another each time")
	faultyAs    = flag.String("faults-as", "stand-ins", "what runs the steps of -faults: stand-ins, argoexec (Wasm with Argo's own executor) or containers")
	faultyArgo  = flag.String("faults-argo", "4.0", "the version of Argo that runs the workflows of -faults")
)

const (
	faultyTasks  = 10 // steps of each workflow of TestWorkflowFaults
	faultyAtOnce = 6  // workflows that run at the same time
)

// faulty is a workflow whose steps each leave a parameter and an artifact with their own number. A pod ends at a
// deadline: when its sandbox dies after the init containers and before the others, the kubelet does not go on with a pod
// that restarts nothing, and does not end it (computePodActions in pkg/kubelet/kuberuntime of Kubernetes 1.34).
const faulty = `
entrypoint: main
templates:
- name: main
  steps: [[{name: step, template: step, arguments: {parameters: [{name: number, value: "{{item}}"}]}, withSequence: {count: "10"}}]]
- name: step
  inputs: {parameters: [{name: number}]}
  retryStrategy: {limit: 30, retryPolicy: Always}
  podSpecPatch: '{"activeDeadlineSeconds":120}'
  container:
    image: $IMAGE
    command: [$PROBE]
    args: [sleep, "1", ",", write, /tmp/out, "parameter {{inputs.parameters.number}}", ",", write, /tmp/art, "artifact {{inputs.parameters.number}}"]
  outputs:
    parameters: [{name: out, valueFrom: {path: /tmp/out}}]
    artifacts: [{name: art, path: /tmp/art, archive: {none: {}}}]
`

// Every step of a workflow with retries succeeds with its whole outputs, whatever is killed meanwhile: our programs in
// the init and wait containers, guests, shims, containerd, the kubelet, the API server.
func TestWorkflowFaults(t *testing.T) {
	if *faultySteps == 0 {
		t.Skip("-faults is not set")
	}
	seed := *faultySeed
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("-faults-seed %d", seed)
	way, found := map[string]way{"containers": ways[0], "argoexec": ways[1], "stand-ins": ways[2]}[*faultyAs]
	if !found {
		t.Fatalf("unknown -faults-as %q", *faultyAs)
	}
	a := argoVersion(*faultyArgo)
	ctx, stop := context.WithCancel(t.Context())
	var killing sync.WaitGroup
	k := &killer{random: rand.New(rand.NewPCG(seed, 0)), killed: map[string]int{}}
	// Argo's controllers have stock shims. A stock shim that is killed leaves its sockets.
	spared, err := cluster.PIDs("containerd-shim")
	if err != nil {
		t.Fatal(err)
	}
	k.spared = spared
	killing.Go(func() { k.run(ctx, t) })
	t.Cleanup(killing.Wait)
	t.Cleanup(stop)
	began := time.Now()
	count := (*faultySteps + faultyTasks - 1) / faultyTasks
	var running []workflow
	tries, stuck, lost := 0, 0, map[string]int{}
	for i := range count {
		for len(running) < min(faultyAtOnce, count-i) {
			k.calm.Lock() // the API server runs
			running = append(running, a.submit(t, way.faulty(t)))
			k.calm.Unlock()
		}
		w := endedNudged(t, running[0])
		running = running[1:]
		t.Logf("workflow %d ended after %v", i, time.Since(began).Round(time.Second))
		tries += checkFaulty(t, w, lost)
		k.calm.Lock()
		pods := a.pods(t, w)
		k.calm.Unlock()
		stuck += checkStuck(t, pods)
	}
	stop()
	killing.Wait()
	t.Logf("killed %v", k.killed)
	t.Logf("%d steps took %d tries and %v", count*faultyTasks, tries, time.Since(began).Round(time.Second))
	t.Logf("the kubelet left %d pods alone after their init containers", stuck)
	for _, message := range slices.Sorted(maps.Keys(lost)) {
		t.Logf("%d tries ended with: %s", lost[message], message)
	}
}

// faulty returns the workflow to run one way.
func (way way) faulty(t testing.TB) *anyObject {
	w := way.workflow(t, faulty)
	if way.executor {
		set(t, w, "true", "spec", "podMetadata", "annotations", "wasm.shim/native-argoexec")
	}
	return w
}

// endedNudged waits until a workflow has ended. Argo's controller leaves a workflow alone for 20 minutes
// (workflowResyncPeriod) when the API server's end cuts off the update of that workflow (persistUpdates in upstream's
// workflow/controller/operator.go). So a workflow that nobody has changed for a while gets an annotation, after which
// the controller looks at it again. That does not help a step that hangs.
func endedNudged(t *testing.T, w workflow) workflow {
	t.Helper()
	where, err := kube.resource(workflowKind, w.argo.name)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	var nudging sync.WaitGroup
	defer nudging.Wait()
	defer stop()
	nudging.Go(func() {
		last := ""
		for count := 0; ; {
			select {
			case <-ctx.Done():
				return
			case <-time.After(nudgeAfter):
			}
			now, err := where.Get(ctx, w.GetName(), metav1.GetOptions{})
			if err != nil {
				continue // the API server is away
			}
			if now.GetResourceVersion() == last {
				count++
				t.Logf("%s has not changed for %v", w.GetName(), nudgeAfter)
				change := fmt.Appendf(nil, `{"metadata":{"annotations":{"nudged":"%d"}}}`, count)
				_, _ = where.Patch(ctx, w.GetName(), types.MergePatchType, change, metav1.PatchOptions{}) // the next turn repeats it
			}
			last = now.GetResourceVersion()
		}
	})
	return w.ended(t)
}

// nudgeAfter is longer than a step that is not disturbed takes.
const nudgeAfter = 30 * time.Second

// checkFaulty checks that each step of a workflow has left its outputs, and returns the number of tries. It counts the
// messages of those that were lost.
func checkFaulty(t *testing.T, w workflow, lost map[string]int) (tries int) {
	t.Helper()
	w.is(t, "Succeeded")
	for i := range faultyTasks {
		n := w.node(t, fmt.Sprintf("[0].step(%d:%d)", i, i))
		equal(t, "the parameter", n.parameter(t, "out"), fmt.Sprint("parameter ", i))
		equal(t, "the artifact", string(n.artifact(t, "art")), fmt.Sprint("artifact ", i))
	}
	for name, n := range w.nodes(t) {
		if strings.Count(name, "(") != 2 {
			continue
		}
		tries++
		if n.Phase != "Succeeded" {
			lost[n.Phase+": "+objectIDs.ReplaceAllString(n.Message, "ID")]++
		}
	}
	return tries
}

// checkStuck checks that no container that was created has run until its pod's deadline, and counts the pods that the
// kubelet has left alone after their init containers. A kubelet that is started again gives the deadline as the reason
// of pods that have ended long before, too.
func checkStuck(t *testing.T, pods []corev1.Pod) (count int) {
	t.Helper()
	for _, pod := range pods {
		if pod.Status.Reason != "DeadlineExceeded" {
			continue
		}
		deadline := pod.Status.StartTime.Add(time.Duration(*pod.Spec.ActiveDeadlineSeconds) * time.Second)
		initialized := true
		for _, c := range pod.Status.InitContainerStatuses {
			initialized = initialized && c.State.Terminated != nil && c.State.Terminated.ExitCode == 0
		}
		for _, c := range pod.Status.ContainerStatuses {
			if end := c.State.Terminated; c.ContainerID != "" && (end == nil || !end.FinishedAt.Time.Before(deadline)) {
				t.Errorf("container %s of pod %s has not ended by itself: %+v", c.Name, pod.Name, c.State)
			}
			if c.Name == "main" && c.ContainerID == "" && initialized {
				count++
			}
		}
	}
	return count
}

// objectIDs are identifiers of containers, and the numbers in the names of pods.
var objectIDs = regexp.MustCompile(`[0-9a-f]{64}|\b\d{6,10}\b`)

// killer kills processes and parts of the node.
type killer struct {
	random *rand.Rand
	killed map[string]int
	spared []int      // processes that are not killed
	calm   sync.Mutex // held while a part is away
}

// run kills something every one or two seconds until ctx ends, and counts what.
func (k *killer) run(ctx context.Context, t *testing.T) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(time.Second + time.Duration(k.random.Int64N(int64(time.Second)))):
		}
		what, err := k.kill()
		if err != nil {
			t.Errorf("kill %s: %v", what, err)
			return
		}
		if what != "" {
			k.killed[what]++
		}
	}
}

// kill returns what was killed, empty if there was no process of the chosen kind.
func (k *killer) kill() (string, error) {
	k.calm.Lock()
	defer k.calm.Unlock()
	switch pick := k.random.IntN(40); { // a part takes seconds to start
	case pick < 26: // guests, and our programs in init and wait; argoexec, which is in every container of a native step
		return k.one("worker", "argoexec")
	case pick < 36:
		return k.one("containerd-shim")
	case pick < 38:
		return testcluster.Containerd, killPart(testcluster.Containerd)
	case pick < 39:
		return testcluster.Kubelet, killPart(testcluster.Kubelet)
	default:
		return testcluster.APIServer, killPart(testcluster.APIServer)
	}
}

// one kills one of the node's processes whose names begin so, if there is any.
func (k *killer) one(names ...string) (string, error) {
	var all []int
	for _, name := range names {
		pids, err := cluster.PIDs(name)
		if err != nil {
			return name, err
		}
		all = append(all, pids...)
	}
	all = slices.DeleteFunc(all, func(pid int) bool { return slices.Contains(k.spared, pid) })
	if len(all) == 0 {
		return "", nil
	}
	pid := all[k.random.IntN(len(all))]
	name, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
	if err == nil {
		err = syscall.Kill(pid, syscall.SIGKILL)
	}
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ESRCH) {
		return "", nil // it has ended
	}
	return strings.TrimSpace(string(name)), err
}

// killPart kills a part and starts it again, also when the test has failed.
func killPart(part string) error {
	ctx := context.Background()
	if err := cluster.Kill9(ctx, part); err != nil {
		return err
	}
	return cluster.Start(ctx, part)
}

// apiServerAway is how long the API server is away in TestWorkflowAPIServerAway.
const apiServerAway = time.Minute

// A step whose main ends while the API server is away succeeds with its outputs at the first try.
func TestWorkflowAPIServerAway(t *testing.T) {
	if *faultySteps == 0 {
		t.Skip("-faults is not set")
	}
	disturbed(t, 1, func(t *testing.T, _ []workflow) {
		if err := cluster.Kill9(t.Context(), testcluster.APIServer); err != nil {
			t.Fatal(err)
		}
		var away sync.WaitGroup
		t.Cleanup(away.Wait)
		away.Go(func() { // main ends meanwhile
			time.Sleep(apiServerAway)
			if err := cluster.Start(context.Background(), testcluster.APIServer); err != nil {
				t.Error(err)
			}
		})
	})
}

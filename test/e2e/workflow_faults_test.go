package e2e

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/wasmshim/containerd-shim-wasm/internal/testcluster"
)

var (
	faultySteps = flag.Int("faults", 0, "run so many steps of workflows while parts of the node are killed at random; 0 leaves that test out")
	faultySeed  = flag.Uint64("faults-seed", 0, "which parts are killed, and when; 0 takes another each time")
)

// faultyTasks is the number of steps of each workflow of TestWorkflowFaults.
const faultyTasks = 10

// faulty is a workflow whose steps each leave a parameter and an artifact with their own number.
const faulty = `
entrypoint: main
templates:
- name: main
  steps: [[{name: step, template: step, arguments: {parameters: [{name: number, value: "{{item}}"}]}, withSequence: {count: "10"}}]]
- name: step
  inputs: {parameters: [{name: number}]}
  retryStrategy: {limit: 30, retryPolicy: Always}
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
	a := argoVersion("4.0")
	var running []workflow
	for range (*faultySteps + faultyTasks - 1) / faultyTasks {
		running = append(running, a.submit(t, asWasm.workflow(t, faulty)))
	}
	ctx, stop := context.WithCancel(t.Context())
	var killing sync.WaitGroup
	killed := map[string]int{}
	killing.Go(func() { killAtRandom(ctx, t, rand.New(rand.NewPCG(seed, 0)), killed) })
	t.Cleanup(killing.Wait)
	t.Cleanup(stop)
	for i, w := range running {
		running[i] = w.ended(t)
	}
	stop()
	killing.Wait()
	t.Logf("killed %v", killed)
	tries := 0
	for _, w := range running {
		w.is(t, "Succeeded")
		for i := range faultyTasks {
			n := w.node(t, fmt.Sprintf("[0].step(%d:%d)", i, i))
			equal(t, "the parameter", n.parameter(t, "out"), fmt.Sprint("parameter ", i))
			equal(t, "the artifact", string(n.artifact(t, "art")), fmt.Sprint("artifact ", i))
		}
		for name := range w.nodes(t) {
			if strings.Count(name, "(") == 2 {
				tries++
			}
		}
	}
	t.Logf("%d steps took %d tries", len(running)*faultyTasks, tries)
}

// killAtRandom kills something every one or two seconds until ctx ends, and counts what.
func killAtRandom(ctx context.Context, t *testing.T, random *rand.Rand, killed map[string]int) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(time.Second + time.Duration(random.Int64N(int64(time.Second)))):
		}
		var err error
		var what string
		switch pick := random.IntN(20); {
		case pick < 12:
			what, err = "worker", killOne(random, "worker") // guests, and our programs in init and wait
		case pick < 16:
			what, err = "shim", killOne(random, "containerd-shim")
		case pick < 18:
			what, err = testcluster.Containerd, killPart(testcluster.Containerd)
		case pick < 19:
			what, err = testcluster.Kubelet, killPart(testcluster.Kubelet)
		default:
			what, err = testcluster.APIServer, killPart(testcluster.APIServer)
		}
		if err != nil {
			t.Errorf("kill %s: %v", what, err)
			return
		}
		killed[what]++
	}
}

// killOne kills one of the node's processes whose name begins so, if there is any.
func killOne(random *rand.Rand, name string) error {
	pids, err := cluster.PIDs(name)
	if err != nil || len(pids) == 0 {
		return err
	}
	err = syscall.Kill(pids[random.IntN(len(pids))], syscall.SIGKILL)
	if err == syscall.ESRCH {
		return nil
	}
	return err
}

func killPart(part string) error {
	ctx := context.Background() // what was killed is started again when the test has failed, too
	if err := cluster.Kill9(ctx, part); err != nil {
		return err
	}
	var err error
	for range startAttempts {
		if err = cluster.Start(ctx, part); err == nil {
			return nil
		}
	}
	return err
}

// startAttempts is how often a part that was killed is started: an API server whose predecessor was killed sometimes
// ends by itself.
const startAttempts = 5

package test

import (
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"

	"github.com/containerd/containerd/api/services/tasks/v1"
	"github.com/containerd/containerd/v2/pkg/oci"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/wasmshim/containerd-shim-wasm/internal/testnode"
)

// atOnce makes all calls at the same time, each a pair of a call and an exec, and returns the results.
func (c *caller) atOnce(calls ...[2]string) []string {
	answers := make([]string, len(calls))
	var done sync.WaitGroup
	begin := make(chan struct{})
	for i, call := range calls {
		done.Go(func() {
			<-begin
			answers[i] = c.call(call[0], call[1])
		})
	}
	close(begin)
	done.Wait()
	return answers
}

// count returns the number of results that are as wanted. A call that hangs or a lost shim fails the test.
func (c *caller) count(answers []string, wanted string) int {
	c.k.t.Helper()
	n := 0
	for _, answer := range answers {
		if answer == wanted {
			n++
		}
		if answer == "HANGS" || answer == "THE SHIM IS GONE" {
			c.k.t.Fatalf("calls at once at %s: %q", c.id, answers)
		}
	}
	return n
}

// If one exec is started several times at once, one start succeeds, and the exec's end is published once.
func TestStartsOfAnExecAtOnce(t *testing.T) {
	eachVersionWithTasks(t, func(t *testing.T, node *testnode.Node) {
		k := asWasm.run(t, node, "sleep", "sleeping")
		c := k.caller()
		for i := range 25 {
			exec := fmt.Sprint("e", i)
			c.expect([2]string{"exec " + exec, "ok"})
			answers := c.atOnce([2]string{"start", exec}, [2]string{"start", exec}, [2]string{"start", exec})
			if c.count(answers, "ok") != 1 || c.count(answers, "refused") != 2 {
				t.Fatalf("three starts at once: %q", answers)
			}
			if pids, err := k.Pids(k.ctx); err != nil || len(pids) != 2 {
				t.Fatalf("with one exec there are %d processes, %v", len(pids), err)
			}
			c.expect([2]string{"kill " + exec, "ok"}, [2]string{"wait " + exec, "ok"}, [2]string{"delete " + exec, "ok"})
		}
		k.stop()
	})
}

// A pause during the start of an exec waits for the start, or the start is refused. Nothing hangs.
func TestPauseWhileAnExecStarts(t *testing.T) {
	eachVersionWithTasks(t, func(t *testing.T, node *testnode.Node) {
		k := asWasm.run(t, node, "sleep", "sleeping")
		c := k.caller()
		for i := range 25 {
			exec := fmt.Sprint("e", i)
			c.expect([2]string{"exec " + exec, "ok"})
			answers := c.atOnce([2]string{"start", exec}, [2]string{"pause"}, [2]string{"state"})
			if c.count(answers[1:2], "ok") != 1 {
				t.Fatalf("pause beside a start: %q", answers)
			}
			c.expect([2]string{"state", "PAUSED"}, [2]string{"resume", "ok"})
			if answers[0] == "ok" {
				c.expect([2]string{"kill " + exec, "ok"}, [2]string{"wait " + exec, "ok"})
			}
			c.expect([2]string{"delete " + exec, "ok"}, [2]string{"state", "RUNNING"})
		}
		k.stop()
	})
}

// Whatever calls come during the start of an exec, the exec can be deleted afterwards, and its id can be used
// again.
func TestCallsBesideAStart(t *testing.T) {
	eachVersionWithTasks(t, func(t *testing.T, node *testnode.Node) {
		k := asWasm.run(t, node, "sleep", "sleeping")
		c := k.caller()
		for range 20 {
			c.expect([2]string{"exec e", "ok"})
			c.count(c.atOnce(
				[2]string{"start", "e"}, [2]string{"kill", "e"}, [2]string{"ask", "e"}, [2]string{"delete", "e"}, [2]string{"state", "e"},
				[2]string{"closeIO", "e"}, [2]string{"resize", "e"}, [2]string{"pids"}, [2]string{"pause"}, [2]string{"resume"},
			), "ok")
			c.call("resume", "")
			if c.call("state", "e") != "NotFound" {
				c.call("kill", "e")
				if answer := c.call("wait", "e"); answer == "ok" {
					c.expect([2]string{"delete e", "ok"})
				} else if answer != "NotFound" {
					t.Fatalf("wait for a killed exec: %s", answer)
				}
			}
		}
		c.expect([2]string{"state", "RUNNING"})
		k.stop()
	})
}

// A kill of the container during the starts of execs ends all execs. This also holds in a shared pid namespace,
// where the kernel does not end them.
func TestKillBesideStarts(t *testing.T) {
	eachVersionWithTasks(t, func(t *testing.T, node *testnode.Node) {
		for range 4 {
			k := asWasm.run(t, node, "sleep", "sleeping", oci.WithHostNamespace(specs.PIDNamespace))
			c := k.caller()
			var calls [][2]string
			for i := range 6 {
				exec := fmt.Sprint("e", i)
				c.expect([2]string{"exec " + exec, "ok"})
				calls = append(calls, [2]string{"start", exec})
			}
			c.count(c.atOnce(append(calls, [2]string{"kill", ""})...), "ok")
			c.expect([2]string{"wait", "ok"})
			for _, start := range calls {
				if state := c.call("state", start[1]); state != "STOPPED" {
					// This start came after the kill, too late for a launch.
					c.expect([2]string{"start " + start[1], "refused"})
				}
				c.expect([2]string{"delete " + start[1], "ok"})
			}
			if _, err := k.Delete(k.ctx); err != nil {
				t.Error(err)
			}
		}
	})
}

// A kill during the start of a container ends the container, started or not, and the end is published.
func TestKillBesideTheStart(t *testing.T) {
	eachVersionWithTasks(t, func(t *testing.T, node *testnode.Node) {
		for range 15 {
			k := asWasm.create(t, node, "sleep")
			c := k.caller()
			c.count(c.atOnce([2]string{"start"}, [2]string{"kill"}, [2]string{"start"}, [2]string{"state"}), "ok")
			c.expect([2]string{"wait", "ok"}, [2]string{"state", "STOPPED"}, [2]string{"start", "refused"})
			if _, err := k.Delete(k.ctx); err != nil {
				t.Error(err)
			}
		}
	})
}

// A kill of the container during a pause ends the container: the pause does not block the signal.
func TestKillBesideAPause(t *testing.T) {
	eachVersionWithTasks(t, func(t *testing.T, node *testnode.Node) {
		for range 25 {
			k := asWasm.run(t, node, "sleep", "sleeping")
			c := k.caller()
			answers := c.atOnce([2]string{"kill"}, [2]string{"pause"})
			if c.count(answers[:1], "ok") != 1 {
				t.Fatalf("kill beside a pause: %q", answers)
			}
			c.expect([2]string{"wait", "ok"}, [2]string{"state", "STOPPED"}, [2]string{"pause", "refused"})
			if t.Failed() {
				return
			}
			if _, err := k.Delete(k.ctx); err != nil {
				t.Error(err)
			}
		}
	})
}

// Kill of an exec that has not been started is refused at once. containerd's client then deletes the exec.
func TestKillOfAnExecThatIsNotStarted(t *testing.T) {
	eachVersionWithTasks(t, func(t *testing.T, node *testnode.Node) {
		for _, w := range []way{asStock, asWasm} {
			k := w.run(t, node, "sleep", "sleeping")
			c := k.caller()
			c.expect(
				[2]string{"exec e", "ok"}, [2]string{"ask e", "FailedPrecondition"}, [2]string{"kill e", "FailedPrecondition"},
				[2]string{"closeIO e", "ok"}, [2]string{"resize e", "ok"}, [2]string{"state e", "CREATED"}, [2]string{"delete e", "ok"},
				[2]string{"kill e", "NotFound"},
			)
			k.stop()
		}
	})
}

// An exec whose start has failed is stopped: State, Wait and Delete work on it.
func TestExecWhoseStartFailed(t *testing.T) {
	eachVersionWithTasks(t, func(t *testing.T, node *testnode.Node) {
		k := asWasm.run(t, node, "sleep", "sleeping")
		c := k.caller()
		freezer := k.freezer()
		for _, whoPauses := range []string{"containerd", "an operator"} {
			c.expect([2]string{"exec e", "ok"})
			if whoPauses == "containerd" {
				c.expect([2]string{"pause", "ok"})
			} else {
				freezer(true)
			}
			c.expect(
				[2]string{"start e", "refused"}, [2]string{"state e", "STOPPED"}, [2]string{"wait e", "ok"}, [2]string{"start e", "refused"},
				[2]string{"kill e", "NotFound"}, [2]string{"delete e", "ok"}, [2]string{"state e", "NotFound"},
			)
			if whoPauses == "containerd" {
				c.expect([2]string{"resume", "ok"})
			} else {
				freezer(false)
			}
		}
		k.stop()
	})
}

// freezer returns a function that freezes and thaws the task without its shim.
func (k *task) freezer() func(frozen bool) {
	k.t.Helper()
	const root = "/sys/fs/cgroup"
	file, words := filepath.Join(root, "freezer", k.node.Namespace, k.container.ID(), "freezer.state"), map[bool]string{true: "FROZEN", false: "THAWED"}
	if _, err := os.Stat(file); err != nil {
		file, words = filepath.Join(root, k.node.Namespace, k.container.ID(), "cgroup.freeze"), map[bool]string{true: "1", false: "0"}
	}
	return func(frozen bool) {
		if err := os.WriteFile(file, []byte(words[frozen]), 0); err != nil {
			k.t.Fatal(err)
		}
	}
}

// A created task that was not started can be deleted, as with the stock shim, also if it was killed before, or
// if others have stopped or frozen it.
func TestDeleteOfCreated(t *testing.T) {
	eachVersionWithTasks(t, func(t *testing.T, node *testnode.Node) {
		asStock.create(t, node, "sleep").deleteCreated() // takes the stock shim 10 s
		asWasm.create(t, node, "sleep").deleteCreated()

		killed := asWasm.create(t, node, "sleep")
		kill(t, killed, syscall.SIGKILL)
		killed.deleteCreated()

		stopped := asWasm.create(t, node, "sleep")
		if err := syscall.Kill(int(stopped.Pid()), syscall.SIGSTOP); err != nil {
			t.Fatal(err)
		}
		stopped.deleteCreated()

		frozen := asWasm.create(t, node, "sleep")
		frozen.freezer()(true)
		frozen.deleteCreated()
	})
}

// deleteCreated calls containerd's service to delete the task, because containerd's client refuses that itself.
func (k *task) deleteCreated() {
	k.t.Helper()
	pid := k.Pid()
	if _, err := k.client.TaskService().Delete(k.ctx, &tasks.DeleteTaskRequest{ContainerID: k.container.ID()}); err != nil {
		k.t.Errorf("%s: %v", k.container.ID(), err)
	}
	if alive(pid) {
		k.t.Errorf("%s: process %d is still there", k.container.ID(), pid)
	}
}

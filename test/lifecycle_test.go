package test

import (
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/containerd/api/services/tasks/v1"
	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/pkg/cio"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc/status"

	"github.com/wasmshim/containerd-shim-wasm/internal/testnode"
)

var killSignals = []struct {
	name string
	code uint32
}{{"SIGTERM", 143}, {"SIGINT", 130}, {"SIGKILL", 137}}

func TestKillLoop(t *testing.T) {
	eachVersionWithTasks(t, func(t *testing.T, node *testnode.Node) {
		for _, signal := range killSignals {
			looping := asWasm.run(t, node, "loop", "looping")
			looping.ctr("kill", "--signal", signal.name, looping.container.ID())
			looping.expectCode(signal.code)
		}
	})
}

// The test logs how long a loop still runs after the kill request, and sets no limit for it.
func TestKillLoopDuration(t *testing.T) {
	eachVersionWithTasks(t, func(t *testing.T, node *testnode.Node) {
		for _, signal := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL} {
			looping := asWasm.run(t, node, "loop", "looping")
			asked := time.Now()
			kill(t, looping, signal)
			exit := <-looping.exited
			t.Logf("%v: process gone after %v, exit told after %v", signal, exit.ExitTime().Sub(asked), time.Since(asked))
			if exit.ExitCode() != 128+uint32(signal) {
				t.Errorf("%v ended it with %d", signal, exit.ExitCode())
			}
		}
	})
}

func TestKillCreated(t *testing.T) {
	eachVersionWithTasks(t, func(t *testing.T, node *testnode.Node) {
		for _, signal := range killSignals {
			created := asWasm.create(t, node, "loop")
			created.expectStatus(client.Created)
			created.ctr("kill", "--signal", signal.name, created.container.ID())
			created.expectCode(signal.code)
			created.expectStatus(client.Stopped)
			if err := created.Start(created.ctx); err == nil {
				t.Errorf("a task that %s has ended can be started", signal.name)
			}
			if got := created.output.String(); got != "" {
				t.Errorf("the guest ran: %q", got)
			}
		}
	})
}

func TestPauseStopsTheCPU(t *testing.T) {
	eachVersionWithTasks(t, func(t *testing.T, node *testnode.Node) {
		looping := asWasm.run(t, node, "loop", "looping")
		looping.ctr("pause", looping.container.ID())
		looping.expectStatus(client.Paused)
		// A process can still use its processor for a moment after the kernel reports that it is frozen.
		before := looping.usage().CPU
		waitFor(t, func() bool {
			last := before
			before = looping.usage().CPU
			return before == last
		}, "the kernel to count what the paused task has used")
		burn(t, 200*time.Millisecond)
		if after := looping.usage().CPU; after != before {
			t.Errorf("CPU time of a paused task grew from %d to %d", before, after)
		}
		looping.ctr("resume", looping.container.ID())
		looping.expectStatus(client.Running)
		waitFor(t, func() bool { return looping.usage().CPU > before }, "the resumed task to burn CPU")
		kill(t, looping, syscall.SIGTERM)
		looping.expectCode(143)
	})
}

// burn keeps this process busy for an amount of its own CPU time. A running guest would get some CPU time
// meanwhile.
func burn(t *testing.T, amount time.Duration) {
	t.Helper()
	used := func() time.Duration {
		var usage unix.Rusage
		if err := unix.Getrusage(unix.RUSAGE_SELF, &usage); err != nil {
			t.Fatal(err)
		}
		return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
	}
	for end := used() + amount; used() < end; {
	}
}

func TestKillPaused(t *testing.T) {
	eachVersionWithTasks(t, func(t *testing.T, node *testnode.Node) {
		looping := asWasm.run(t, node, "loop", "looping")
		looping.ctr("pause", looping.container.ID())
		looping.ctr("kill", "--signal", "SIGKILL", looping.container.ID())
		looping.expectCode(137)
		looping.expectStatus(client.Stopped)
	})
}

func TestExec(t *testing.T) {
	eachVersionWithTasks(t, func(t *testing.T, node *testnode.Node) {
		main := asWasm.createArgs(t, node, []string{"/app.wasm", "sleep", "1000", "/tmp/note", "from the main guest"})
		main.start()
		main.output.await(t, "sleeping")
		for _, c := range []struct {
			name string
			args []string
			want testnode.Result
		}{
			{"another file", []string{"/hello.wasm"}, testnode.Result{Stdout: "hello from C\n"}},
			{"own arguments", []string{"/app.wasm", "args", "a b", "", "ü"}, testnode.Result{Stdout: "a b\n\nü\n"}},
			{"own exit code", []string{"/app.wasm", "exit", "7"}, testnode.Result{Code: 7}},
			{"stderr", []string{"/app.wasm", "lines", "1"}, testnode.Result{Stderr: "line 1\n"}},
			{"function", []string{"/app.wasm#other"}, testnode.Result{Stdout: "other function\n"}},
			{"the main guest's file", []string{"/app.wasm", "read", "/tmp/note"}, testnode.Result{Stdout: "from the main guest"}},
		} {
			id := strings.NewReplacer(" ", "-", "'", "").Replace(c.name)
			got := node.Ctr(t, slices.Concat([]string{"tasks", "exec", "--exec-id", id, main.container.ID()}, c.args)...)
			check(t, c.name, got, c.want)
		}
		e := main.exec([]string{"/app.wasm", "env"}, func(p *specs.Process) { p.Env = []string{"ONLY=this"}; p.Cwd = "/tmp" })
		if code, got := main.finish(e); code != 0 || got != "ONLY=this\nHOME=/\nPWD=/tmp\n" {
			t.Errorf("environment: %d, %q", code, got)
		}
		main.expectStatus(client.Running)
	})
}

func TestExecTerminal(t *testing.T) {
	eachVersionWithTasks(t, func(t *testing.T, node *testnode.Node) {
		main := asWasm.run(t, node, "sleep", "sleeping")
		e := main.exec([]string{"/hello.wasm"}, func(p *specs.Process) { p.Terminal = true }, cio.WithTerminal)
		// A terminal turns the guest's newline into carriage return and newline.
		if code, got := main.finish(e); code != 0 || got != "hello from C\r\n" {
			t.Errorf("got %d, %q", code, got)
		}
		sleeping := main.exec([]string{"/app.wasm", "sleep", "1000"}, func(p *specs.Process) { p.Terminal = true }, cio.WithTerminal)
		sleeping.output.await(t, "sleeping\r\n")
		if err := sleeping.Resize(main.ctx, 132, 43); err != nil {
			t.Error(err)
		}
	})
}

func TestExecRefusals(t *testing.T) {
	eachVersionWithTasks(t, func(t *testing.T, node *testnode.Node) {
		main := asWasm.run(t, node, "sleep", "sleeping")
		for _, c := range []struct{ file, want string }{
			{"/native", "/native is a native program; a Wasm container runs only WebAssembly modules"},
			{"/missing.wasm", "/missing.wasm does not exist in the container"},
			{"/app.wasm#missing", `no function "missing"`},
		} {
			id := "refused-" + strings.Trim(strings.NewReplacer(".", "-", "#", "-").Replace(c.file), "/")
			got := node.Ctr(t, "tasks", "exec", "--exec-id", id, main.container.ID(), c.file)
			if got.Code == 0 || !strings.Contains(got.Stderr, c.want) {
				t.Errorf("exec of %s: got %+v, want an error with %q", c.file, got, c.want)
			}
		}
		main.expectStatus(client.Running)
	})
}

func TestExecKill(t *testing.T) {
	eachVersionWithTasks(t, func(t *testing.T, node *testnode.Node) {
		main := asWasm.run(t, node, "sleep", "sleeping")
		for _, signal := range killSignals {
			e := main.exec(asWasm.programs["loop"], nil)
			e.output.await(t, "looping")
			main.ctr("kill", "--exec-id", e.ID(), "--signal", signal.name, main.container.ID())
			if code, _ := main.finish(e); code != signal.code {
				t.Errorf("%s ended the exec with %d", signal.name, code)
			}
		}
		main.expectStatus(client.Running)
	})
}

// An exec ends with its container, also when the container ends by itself after a request.
func TestExecDiesWithTheContainer(t *testing.T) {
	eachVersionWithTasks(t, func(t *testing.T, node *testnode.Node) {
		for _, signal := range killSignals {
			main := asWasm.run(t, node, "sleep", "sleeping")
			e := main.exec(asWasm.programs["loop"], nil)
			e.output.await(t, "looping")
			main.ctr("kill", "--signal", signal.name, main.container.ID())
			main.expectCode(signal.code)
			if code, _ := main.finish(e); code != 137 {
				t.Errorf("after %s the exec ended with %d", signal.name, code)
			}
		}
	})
}

// Delete of a running task is refused with the stock runtime's error.
func TestDeleteOfRunningIsRefused(t *testing.T) {
	eachVersionWithTasks(t, func(t *testing.T, node *testnode.Node) {
		refusals := map[string]string{}
		for _, w := range []way{asStock, asNative, asWasm} {
			k := w.run(t, node, "sleep", "sleeping")
			c := node.Client(t)
			_, err := c.TaskService().Delete(k.ctx, &tasks.DeleteTaskRequest{ContainerID: k.container.ID()})
			if err == nil || !strings.Contains(err.Error(), "cannot delete a running process") {
				t.Errorf("%s: got error %v", w.name, err)
			}
			refusals[w.name] = status.Code(err).String()
			k.expectStatus(client.Running)

			e := k.exec(w.programs["loop"], nil)
			e.output.await(t, "looping")
			_, err = c.TaskService().DeleteProcess(k.ctx, &tasks.DeleteProcessRequest{ContainerID: k.container.ID(), ExecID: e.ID()})
			if err == nil || !strings.Contains(err.Error(), "cannot delete a running process") {
				t.Errorf("%s, exec: got error %v", w.name, err)
			}
			refusals[w.name] += ", exec " + status.Code(err).String()
		}
		if refusals["wasm"] != refusals["stock"] || refusals["native"] != refusals["stock"] {
			t.Errorf("kinds of errors differ: %v", refusals)
		}
	})
}

package test

import (
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/pkg/cio"
	"github.com/containerd/containerd/v2/pkg/oci"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/wasmshim/containerd-shim-wasm/internal/testnode"
)

// Native containers behave under our runtime as under the stock one, and leave nothing behind: the stock shim
// behind our shim ends too.
func TestNativeIsAsStock(t *testing.T) {
	eachVersionWithTasks(t, func(t *testing.T, node *testnode.Node) {
		for _, w := range []way{asStock, asNative} {
			t.Run("run as "+w.name, func(t *testing.T) { testNativeRun(t, node, w) })
			t.Run("exec as "+w.name, func(t *testing.T) { testNativeExec(t, node, w) })
			t.Run("signals as "+w.name, func(t *testing.T) { testNativeSignals(t, node, w) })
			t.Run("pause as "+w.name, func(t *testing.T) { testNativePause(t, node, w) })
			t.Run("limits as "+w.name, func(t *testing.T) { testNativeLimits(t, node, w) })
		}
	})
}

func testNativeRun(t *testing.T, node *testnode.Node, w way) {
	node.NoLeaks(t)
	for i, c := range []struct {
		args  []string
		stdin string
		want  testnode.Result
	}{
		{args: []string{"/hello"}, want: testnode.Result{Stdout: "hello from native C\n"}},
		{args: []string{"sh", "-c", "exit 42"}, want: testnode.Result{Code: 42}},
		{args: []string{"sh", "-c", "exit 255"}, want: testnode.Result{Code: 255}},
		{args: []string{"sh", "-c", "cat; echo mistake >&2"}, stdin: "in", want: testnode.Result{Stdout: "in", Stderr: "mistake\n"}},
		{args: []string{"sh", "-c", "echo $$; hostname"}, want: testnode.Result{Stdout: "1\n" + hostname(t) + "\n"}},
	} {
		id := w.name + "-run-" + string(rune('a'+i))
		opts := testnode.CtrOpts{}
		if c.stdin != "" {
			opts.Stdin = strings.NewReader(c.stdin)
		}
		got := node.CtrWith(t, opts, slices.Concat([]string{"run", "--rm", "--runtime", w.runtime, w.image, id}, c.args)...)
		check(t, strings.Join(c.args, " "), got, c.want)
	}
}

// hostname returns the host's name. A container of ctr shares that with the host, and nothing else.
func hostname(t *testing.T) string {
	t.Helper()
	var name syscall.Utsname
	if err := syscall.Uname(&name); err != nil {
		t.Fatal(err)
	}
	var text strings.Builder
	for _, c := range name.Nodename {
		if c == 0 {
			break
		}
		text.WriteByte(byte(c))
	}
	return text.String()
}

func testNativeExec(t *testing.T, node *testnode.Node, w way) {
	node.NoLeaks(t)
	k := w.run(t, node, "sleep", "sleeping")
	// Each exec ends only after its output has arrived. The stock shim opens the output once the process runs,
	// and drops output that a client has not begun to read when the client deletes the exec.
	told := func(script, want string, change func(*specs.Process), streams ...cio.Opt) {
		t.Helper()
		e := k.exec([]string{"sh", "-c", `trap "exit 7" TERM; ` + script + "; while :; do :; done"}, change, streams...)
		e.output.await(t, want)
		if err := e.Kill(k.ctx, syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		if code, got := k.finish(e); code != 7 || got != want {
			t.Errorf("%s: got %d, %q", script, code, got)
		}
	}
	told("echo hi", "hi\n", nil)
	told("tty; echo hi", "/dev/pts/0\r\nhi\r\n", func(p *specs.Process) { p.Terminal = true }, cio.WithTerminal)
	e := k.exec(w.programs["loop"], nil)
	e.output.await(t, "looping")
	k.ctr("kill", "--exec-id", e.ID(), "--signal", "SIGTERM", k.container.ID())
	if code, _ := k.finish(e); code != 143 {
		t.Errorf("a killed exec ended with %d", code)
	}
	k.stop()
}

func testNativeSignals(t *testing.T, node *testnode.Node, w way) {
	node.NoLeaks(t)
	for _, signal := range killSignals {
		k := w.run(t, node, "loop", "looping")
		k.ctr("kill", "--signal", signal.name, k.container.ID())
		k.expectCode(signal.code)
		k.expectStatus(client.Stopped)
	}
}

func testNativePause(t *testing.T, node *testnode.Node, w way) {
	node.NoLeaks(t)
	k := w.run(t, node, "loop", "looping")
	k.ctr("pause", k.container.ID())
	k.expectStatus(client.Paused)
	before := k.usage().CPU
	k.ctr("resume", k.container.ID())
	k.expectStatus(client.Running)
	waitFor(t, func() bool { return k.usage().CPU > before }, "the resumed task to burn CPU")
	k.ctr("pause", k.container.ID())
	k.ctr("kill", "--signal", "SIGKILL", k.container.ID())
	k.expectCode(137)
}

func testNativeLimits(t *testing.T, node *testnode.Node, w way) {
	node.NoLeaks(t)
	k := w.run(t, node, "loop", "looping", oci.WithMemoryLimit(limitedMemory), oci.WithPidsLimit(77))
	if table := metricsTable(k); table["pids.limit"] != "77" || table["memory.limit_in_bytes"]+table["memory.usage_limit"] != "67108864" {
		t.Errorf("metrics are %v", table)
	}
	k.stop()
	filler := w.create(t, node, "fill", oci.WithMemoryLimit(limitedMemory), fillMount)
	filler.start()
	filler.expectCode(137)
}

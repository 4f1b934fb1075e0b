package test

import (
	"syscall"
	"testing"

	"github.com/wasmshim/containerd-shim-wasm/internal/testguest"
	"github.com/wasmshim/containerd-shim-wasm/internal/testnode"
)

// slow is asWasm with execs of a module that takes long to compile.
var slow = way{"slow", runtime, "example.com/calledoff/slow:latest", map[string][]string{"sleep": {"/slow.wasm"}}}

// startSlow adds exec "e" and calls start for it on starter. It returns while the exec's module is being
// compiled; the preparer is stopped, so the compilation does not end by itself. The result of start arrives on
// answer.
func (c *caller) startSlow(starter *caller) (answer <-chan string) {
	t := c.k.t.(*testing.T)
	t.Helper()
	c.expect([2]string{"exec e", "ok"})
	answers := make(chan string, 1)
	go func() { answers <- starter.call("start", "e") }()
	shim := 0
	if !eventually(func() bool { shim = compilingShim(t, c.k.node); return shim != 0 }) {
		t.Fatal("nothing is being compiled")
	}
	for _, p := range preparers(t) {
		if p.shim != shim {
			continue
		}
		if err := syscall.Kill(p.pid, syscall.SIGSTOP); err != nil {
			t.Fatal(err)
		}
	}
	return answers
}

// An exec whose module is still being compiled can be killed and deleted. It ends with its caller and with its
// container, and never runs.
func TestExecThatIsCalledOffWhileItIsCompiled(t *testing.T) {
	opts, err := testguest.WasmImage("probe")
	if err != nil {
		t.Fatal(err)
	}
	if opts.Files["/slow.wasm"], err = testguest.Keep("slow.wasm", testguest.Big(7<<20)); err != nil {
		t.Fatal(err)
	}
	image := testguest.Image(t, slow.image, opts)
	eachVersionWithTasks(t, func(t *testing.T, node *testnode.Node) {
		node.Import(t, image)
		k := slow.createArgs(t, node, wasmPrograms["sleep"])
		k.start()
		k.output.await(t, "sleeping")
		c := k.caller()

		answer := c.startSlow(c)
		c.expect([2]string{"kill e", "ok"}, [2]string{"wait e", "ok"}, [2]string{"state e", "STOPPED"}, [2]string{"kill e", "NotFound"})
		expectRefused(t, answer)
		c.expect([2]string{"delete e", "ok"})

		answer = c.startSlow(c)
		c.expect([2]string{"delete e", "ok"}, [2]string{"state e", "NotFound"})
		expectRefused(t, answer)

		gone := k.caller()
		answer = c.startSlow(gone)
		if err := gone.client.Close(); err != nil {
			t.Error(err)
		}
		<-answer // reports that its own end of the connection is closed
		c.expect([2]string{"wait e", "ok"}, [2]string{"delete e", "ok"})

		answer = c.startSlow(c)
		c.expect([2]string{"kill", "ok"}, [2]string{"wait", "ok"})
		expectRefused(t, answer)
		c.expect([2]string{"delete e", "ok"})
		k.expectCode(137)
		if _, err := k.Delete(k.ctx); err != nil {
			t.Error(err)
		}
		noPreparer(t)
	})
}

func expectRefused(t *testing.T, answer <-chan string) {
	t.Helper()
	if got := <-answer; got != "refused" {
		t.Errorf("the start that was called off: %s", got)
	}
}

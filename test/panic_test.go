package test

import (
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/wasmshim/containerd-shim-wasm/internal/testnode"
)

// What Go's runtime writes when it ends the daemon stands in containerd's log: a SIGQUIT has it write
// what a panic has. A containerd that was restarted reads it too, and one that is away holds nothing up.
func TestDaemonsLastWordsAreLogged(t *testing.T) {
	eachVersionWithTasks(t, func(t *testing.T, node *testnode.Node) {
		for _, restarted := range []bool{false, true} {
			k := asWasm.run(t, node, "sleep", "sleeping")
			if restarted {
				if err := node.Kill9(); err != nil {
					t.Fatal(err)
				}
				if err := node.Restart(t.Context()); err != nil {
					t.Fatal(err)
				}
				k.reload()
			}
			info, err := os.Stat(node.Log())
			if err != nil {
				t.Fatal(err)
			}
			if err := syscall.Kill(int(k.connect().ShimPid), syscall.SIGQUIT); err != nil {
				t.Fatal(err)
			}
			waitFor(t, func() bool {
				log := node.LogTail(info.Size(), 1000)
				return strings.Contains(log, "SIGQUIT: quit") && strings.Contains(log, "containerd-shim-wasm/shim.Serve(")
			}, "the daemon's last words in containerd's log")
			k.awaitRemoval()
		}
	})
}

// A daemon that nobody listens to ends as soon as one that somebody does.
func TestDaemonsLastWordsUnheard(t *testing.T) {
	eachVersionWithTasks(t, func(t *testing.T, node *testnode.Node) {
		k := asWasm.run(t, node, "sleep", "sleeping")
		shim := k.connect().ShimPid
		if err := node.Kill9(); err != nil {
			t.Fatal(err)
		}
		if err := syscall.Kill(int(shim), syscall.SIGQUIT); err != nil {
			t.Fatal(err)
		}
		waitFor(t, func() bool { return !alive(shim) }, "the end of daemon %d", shim)
		if err := node.Restart(t.Context()); err != nil {
			t.Fatal(err)
		}
		k.awaitRemoval()
	})
}

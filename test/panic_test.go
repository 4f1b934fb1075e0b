package test

import (
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/wasmshim/containerd-shim-wasm/internal/testnode"
)

// containerd's log has the text that Go's runtime writes when it ends the daemon. SIGQUIT makes it write the
// same as a panic. A restarted containerd reads the text too, and an absent containerd blocks nothing.
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

// A daemon whose output nobody reads ends as fast as one whose output is read.
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

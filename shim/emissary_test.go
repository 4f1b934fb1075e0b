package shim

import (
	"testing"

	"github.com/wasmshim/containerd-shim-wasm/argo"
)

// If a variable is set twice, the daemon uses the last one, as the guest does.
func TestReservedBelievesTheLastVariable(t *testing.T) {
	const name = "ARGO_PROGRESS_FILE="
	c := command{emissary: []string{"argoexec"}}
	for want, env := range map[string][]string{
		"progress": {name + "/elsewhere/progress", name + argo.VolumePath + "/progress"},
		"":         {name + argo.VolumePath + "/progress", name + "/elsewhere/progress"},
	} {
		if got := c.reserved(env).Shared; got != want {
			t.Errorf("%q: the guest may write %q, want %q", env, got, want)
		}
	}
}

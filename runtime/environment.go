package runtime

import (
	"strings"

	"github.com/wasmshim/containerd-shim-wasm/runtime/control"
)

// environment splits the guest's environment. WASI preview 1 has no working
// directory; Go's wasip1 port takes it from PWD, so that is set.
func environment(order control.Guest) (names, values []string) {
	hasPWD := false
	for _, e := range order.Env {
		name, value, _ := strings.Cut(e, "=")
		if name == "" {
			continue
		}
		hasPWD = hasPWD || name == "PWD"
		names, values = append(names, name), append(values, value)
	}
	if !hasPWD && order.Cwd != "" {
		names, values = append(names, "PWD"), append(values, order.Cwd)
	}
	return names, values
}

package policy

import (
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/wasmshim/containerd-shim-wasm/sandbox/seccomp"
)

// Every name is a system call. A filter silently omits a name that no architecture has, so a typing error
// would go unnoticed.
func TestNamesAreCalls(t *testing.T) {
	for role, profile := range Roles() {
		for _, call := range profile.Syscalls {
			for _, name := range call.Names {
				if !isCall(t, name) {
					t.Errorf("%s: there is no system call %q", role, name)
				}
			}
		}
	}
}

// isCall reports whether a filter that allows the call of that name differs from one that allows nothing.
func isCall(t *testing.T, name string) bool {
	t.Helper()
	for _, goarch := range []string{"amd64", "arm64"} {
		length := func(names ...string) int {
			filter, err := seccomp.CompileFor(goarch, &specs.LinuxSeccomp{DefaultAction: specs.ActErrno, Syscalls: []specs.LinuxSyscall{{Names: names, Action: specs.ActAllow}}})
			if err != nil {
				t.Fatal(err)
			}
			return len(filter.Program())
		}
		if length("no_such_call", name) != length("no_such_call") {
			return true
		}
	}
	return false
}

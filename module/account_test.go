package module

import (
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/wasmshim/containerd-shim-wasm/config"
)

// A preparer is in the cgroup of its pod, with either cgroup driver, and never in one of the node's own.
func TestPreparersPlace(t *testing.T) {
	for _, test := range []struct {
		path    string
		systemd bool
		want    string // what the place starts with
		unit    bool
	}{
		{"/kubepods/burstable/pod1/c1", false, "/kubepods/burstable/pod1/wasm-compile-", false},
		{"kubepods-pod1.slice:cri-containerd:c1", true, "kubepods-pod1.slice:wasm-compile:", true},
		{"kubepods-pod1.slice:cri-containerd:c1", false, "/containerd-shim-wasm/wasm-compile-", false},
		{"/default/c1", true, "/default/wasm-compile-", false},
		{"below/own", false, "below/wasm-compile-", false},
		{"/c1", false, "/containerd-shim-wasm/wasm-compile-", false},
		{"/../..", false, "/containerd-shim-wasm/wasm-compile-", false},
		{"", false, "/containerd-shim-wasm/wasm-compile-", false},
		{"", true, "/containerd-shim-wasm/wasm-compile-", false},
	} {
		got := Account{CgroupsPath: test.path, Systemd: test.systemd}.location()
		if !strings.HasPrefix(got.CgroupsPath, test.want) || got.Systemd != test.unit {
			t.Errorf("%q, systemd %t: got %+v", test.path, test.systemd, got)
		}
	}
}

// The lower of the container's and the operator's limit applies.
func TestPreparersLimits(t *testing.T) {
	s := config.Config{CompileMemory: 100, Source: "config.toml"}
	memory := func(limit int64) *specs.LinuxResources {
		return &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: &limit, Swap: &limit}}
	}
	for name, test := range map[string]struct {
		resources *specs.LinuxResources
		want      int64
		remedy    string
	}{
		"no limits":   {nil, 100, "raise compile_memory in config.toml"},
		"no limit":    {&specs.LinuxResources{}, 100, "raise compile_memory in config.toml"},
		"unlimited":   {memory(-1), 100, "raise compile_memory in config.toml"},
		"large":       {memory(101), 100, "raise compile_memory in config.toml"},
		"small":       {memory(99), 99, "the memory limit of its container"},
		"as the node": {memory(100), 100, "raise compile_memory in config.toml"},
	} {
		a := Account{Resources: test.resources}
		got := a.limits(s)
		if *got.Memory.Limit != test.want || !strings.Contains(a.moreMemory(s), test.remedy) {
			t.Errorf("%s: %d, %q", name, *got.Memory.Limit, a.moreMemory(s))
		}
		if swap := got.Memory.Swap; swap != nil && *swap < test.want {
			t.Errorf("%s: %d bytes of memory and swap", name, *swap)
		}
	}
	quota := int64(10_000)
	a := Account{Resources: &specs.LinuxResources{CPU: &specs.LinuxCPU{Quota: &quota}}}
	if got := a.limits(s); *got.CPU.Quota != quota || !strings.Contains(a.moreTime(s), "raise its CPU limit") {
		t.Errorf("got %+v, %q", got.CPU, a.moreTime(s))
	}
	if account := (Account{}); strings.Contains(account.moreTime(s), "CPU") {
		t.Errorf("without a limit: %q", account.moreTime(s))
	}
}

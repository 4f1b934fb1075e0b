package module

import (
	"crypto/rand"
	"fmt"
	"os"
	"path"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/wasmshim/containerd-shim-wasm/config"
)

// Account names the payer of a preparer's work. The zero value is the node's operator, who compiles ahead of
// time (Warm).
type Account struct {
	// Tenant is the unit that the node's shares are divided between, Pod the pod, or a container without one.
	Tenant, Pod string
	// CgroupsPath is the container's linux.cgroupsPath; Systemd reports whether systemd makes its cgroup.
	CgroupsPath string
	Systemd     bool
	// Resources are the container's limits, nil for none.
	Resources *specs.LinuxResources
}

// Preparers' cgroups have a name of their own. Without a container's cgroup beside which to put them, they go
// to a folder of their own.
const (
	preparerName   = "wasm-compile"
	preparerFolder = "/containerd-shim-wasm"
)

// location is the place of a preparer's cgroup.
type location struct {
	CgroupsPath string // as linux.cgroupsPath
	Systemd     bool
}

// location returns the place of a new preparer: beside the container, so below its pod, whose limits
// therefore apply, too. The kubelet removes everything in a pod's cgroup when it removes that cgroup.
func (a Account) location() location {
	id := fmt.Sprintf("%d-%s", os.Getpid(), rand.Text()[:12])
	slice, _, isUnit := strings.Cut(a.CgroupsPath, ":")
	switch parent := path.Dir(path.Clean(a.CgroupsPath)); {
	case isUnit && a.Systemd:
		return location{CgroupsPath: slice + ":" + preparerName + ":" + id, Systemd: true}
	case isUnit || a.CgroupsPath == "" || parent == "/":
		return location{CgroupsPath: path.Join(preparerFolder, preparerName+"-"+id)}
	default:
		return location{CgroupsPath: path.Join(parent, preparerName+"-"+id)}
	}
}

// preparerPids bounds the threads of a preparer.
const preparerPids = 256

// limits returns the limits of a preparer: at most those of its container, and at most what the operator
// allows for any.
func (a Account) limits(s config.Config) *specs.LinuxResources {
	memory, pids := s.CompileMemory, int64(preparerPids)
	limits := &specs.LinuxResources{
		Memory: &specs.LinuxMemory{Limit: &memory},
		Pids:   &specs.LinuxPids{Limit: &pids},
	}
	if own, ok := a.memory(); ok && own < memory {
		memory = own
		limits.Memory.Swap = a.Resources.Memory.Swap
	}
	if a.Resources != nil && a.Resources.CPU != nil {
		c := a.Resources.CPU
		limits.CPU = &specs.LinuxCPU{Shares: c.Shares, Quota: c.Quota, Period: c.Period, Cpus: c.Cpus, Mems: c.Mems}
	}
	return limits
}

// memory returns the container's limit, if it has one.
func (a Account) memory() (int64, bool) {
	if a.Resources == nil || a.Resources.Memory == nil || a.Resources.Memory.Limit == nil {
		return 0, false
	}
	limit := *a.Resources.Memory.Limit
	return limit, limit > 0
}

// hasQuota reports whether the container may use only a part of the processors.
func (a Account) hasQuota() bool {
	return a.Resources != nil && a.Resources.CPU != nil && a.Resources.CPU.Quota != nil && *a.Resources.CPU.Quota > 0
}

// ahead is the advice for a container whose limits are enough to run a module but not to compile it.
const ahead = "or compile the module ahead of time with the operator's limits (containerd-shim-wasm-v1 cache warm IMAGE, docs/cache.md)"

// moreMemory returns the end of an error about too little memory.
func (a Account) moreMemory(s config.Config) string {
	if own, ok := a.memory(); ok && own < s.CompileMemory {
		return ", the memory limit of its container: raise that limit, " + ahead
	}
	return ": raise compile_memory in " + s.Source + ", or the memory limit of its pod if that is lower"
}

// moreTime returns the end of an error about too little time.
func (a Account) moreTime(s config.Config) string {
	if a.hasQuota() {
		return " with the processor time that its container may use: raise its CPU limit, raise compile_timeout in " + s.Source + ", " + ahead
	}
	return ": raise compile_timeout in " + s.Source
}

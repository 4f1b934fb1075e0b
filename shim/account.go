package shim

import (
	"fmt"
	"os"
	"path"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// account says who pays for what a preparer does. The zero value is the node's
// operator, who compiles ahead of time (Warm).
type account struct {
	// tenant is whom the node's shares are divided between, pod the pod, or a
	// container without one.
	tenant, pod string
	// path is the container's linux.cgroupsPath; systemd says who makes its cgroup.
	path    string
	systemd bool
	// resources are the container's limits, nil for none.
	resources *specs.LinuxResources
}

// sandboxNamespaceAnnotation is the Kubernetes namespace of a pod; containerd's CRI plugin
// sets it.
const sandboxNamespaceAnnotation = "io.kubernetes.cri.sandbox-namespace"

// account returns the container's. Tenants are told apart by containerd's namespace and
// Kubernetes'.
func (c *container) account() account {
	tenant := c.node.flags.Namespace
	if namespace := c.spec.Annotations[sandboxNamespaceAnnotation]; namespace != "" {
		tenant += "/" + namespace
	}
	pod := c.spec.Annotations[sandboxIDAnnotation]
	if pod == "" {
		pod = c.id
	}
	return account{
		tenant: tenant, pod: c.node.flags.Namespace + "/" + pod,
		path: c.spec.Linux.CgroupsPath, systemd: c.settings.systemdCgroup(c.spec), resources: c.spec.Linux.Resources,
	}
}

// Preparers' cgroups have a name of their own. Where there is no container's to put them beside,
// they lie in a folder of their own.
const (
	preparerName   = "wasm-compile"
	preparerFolder = "/containerd-shim-wasm"
)

// place is where a preparer's cgroup is.
type place struct {
	CgroupsPath string // as linux.cgroupsPath
	Systemd     bool
}

// place returns the place of a new preparer: beside the container, so below its pod,
// whose limits therefore hold, too. The kubelet, when it removes a pod's cgroup, removes
// whatever is in there.
func (a account) place() place {
	id := fmt.Sprintf("%d-%s", os.Getpid(), randomID())
	slice, _, isUnit := strings.Cut(a.path, ":")
	switch parent := path.Dir(path.Clean(a.path)); {
	case isUnit && a.systemd:
		return place{CgroupsPath: slice + ":" + preparerName + ":" + id, Systemd: true}
	case isUnit || a.path == "" || parent == "/":
		return place{CgroupsPath: path.Join(preparerFolder, preparerName+"-"+id)}
	default:
		return place{CgroupsPath: path.Join(parent, preparerName+"-"+id)}
	}
}

// preparerPids bounds the threads of a preparer.
const preparerPids = 256

// limits returns what a preparer may take: no more than its container, and
// no more than the operator allows for any.
func (a account) limits(s settings) *specs.LinuxResources {
	memory, pids := s.CompileMemory, int64(preparerPids)
	limits := &specs.LinuxResources{
		Memory: &specs.LinuxMemory{Limit: &memory},
		Pids:   &specs.LinuxPids{Limit: &pids},
	}
	if own, ok := a.memory(); ok && own < memory {
		memory = own
		limits.Memory.Swap = a.resources.Memory.Swap
	}
	if a.resources != nil && a.resources.CPU != nil {
		c := a.resources.CPU
		limits.CPU = &specs.LinuxCPU{Shares: c.Shares, Quota: c.Quota, Period: c.Period, Cpus: c.Cpus, Mems: c.Mems}
	}
	return limits
}

// memory returns the container's limit, if it has one.
func (a account) memory() (int64, bool) {
	if a.resources == nil || a.resources.Memory == nil || a.resources.Memory.Limit == nil {
		return 0, false
	}
	limit := *a.resources.Memory.Limit
	return limit, limit > 0
}

// hasQuota reports whether the container may use only a part of the processors.
func (a account) hasQuota() bool {
	return a.resources != nil && a.resources.CPU != nil && a.resources.CPU.Quota != nil && *a.resources.CPU.Quota > 0
}

// ahead is what an operator can do for a container whose limits are enough to run a module
// but not to compile it.
const ahead = "or compile the module ahead of time with the operator's limits (containerd-shim-wasm-v1 cache warm IMAGE, docs/cache.md)"

// moreMemory ends an error that says that memory does not suffice.
func (a account) moreMemory(s settings) string {
	if own, ok := a.memory(); ok && own < s.CompileMemory {
		return ", the memory limit of its container: raise that limit, " + ahead
	}
	return ": raise compile_memory in " + s.source + ", or the memory limit of its pod if that is lower"
}

// moreTime ends an error that says that time does not suffice.
func (a account) moreTime(s settings) string {
	if a.hasQuota() {
		return " with the processor time that its container may use: raise its CPU limit, raise compile_timeout in " + s.source + ", " + ahead
	}
	return ": raise compile_timeout in " + s.source
}

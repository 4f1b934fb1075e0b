package sandbox

import (
	"fmt"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/wasmshim/containerd-shim-wasm/worker/control"
)

// minAddressSpace is the least RLIMIT_AS a worker can live with: wasmtime
// reserves (does not use) 4 GiB and a guard for a guest's memory.
const minAddressSpace = 16 << 30

// checkRlimits refuses limits that are too low for a worker: it would end before it could report why.
func checkRlimits(p *specs.Process) error {
	for _, r := range p.Rlimits {
		if _, ok := rlimits[r.Type]; !ok {
			return fmt.Errorf("process.rlimits names %q, which is unknown", r.Type)
		}
		if r.Soft == unix.RLIM_INFINITY {
			continue
		}
		switch {
		case r.Type == "RLIMIT_AS" && r.Soft < minAddressSpace:
			return fmt.Errorf("process.rlimits RLIMIT_AS of %d bytes is too low: wasmtime reserves address space, %d is the least; limit memory by the cgroup instead", r.Soft, uint64(minAddressSpace))
		case r.Type == "RLIMIT_NOFILE" && r.Soft < control.LeastFiles:
			return fmt.Errorf("process.rlimits RLIMIT_NOFILE of %d is too low: wasmtime and its runtime have open files of their own, %d is the least", r.Soft, control.LeastFiles)
		case r.Type == "RLIMIT_NPROC" && r.Soft < control.LeastThreads && p.User.UID != 0: // root has no such limit, see getrlimit(2)
			return fmt.Errorf("process.rlimits RLIMIT_NPROC of %d is too low: wasmtime and its runtime have threads of their own, %d is the least", r.Soft, control.LeastThreads)
		}
	}
	return nil
}

// checkPids refuses a limit of processes that is too low for the threads of one worker.
func checkPids(spec *specs.Spec) error {
	r := spec.Linux.Resources
	if r == nil || r.Pids == nil || r.Pids.Limit == nil || *r.Pids.Limit <= 0 || *r.Pids.Limit >= control.LeastThreads {
		return nil
	}
	return fmt.Errorf("linux.resources.pids.limit of %d is too low: it counts threads, of which wasmtime and its runtime have some of their own; %d is the least", *r.Pids.Limit, control.LeastThreads)
}

package sandbox

import (
	"fmt"
	"slices"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// useful are the capabilities that change the effect of WASI's calls on files. No WASI
// call needs any other.
var useful = []string{"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH", "CAP_FOWNER", "CAP_FSETID"}

// restrict removes the rights from the thread that a guest's worker and the preparer do not
// need, even if their specification grants them, and returns the process to launch. A native
// program keeps the rights of its specification.
func (s *Sandbox) restrict(l Launch) (*specs.Process, error) {
	if l.Native {
		return hiding(l)
	}
	if err := s.restrictFiles(); err != nil {
		return nil, err
	}
	return forWorker(l.Process)
}

// reading are the capabilities that make every file readable.
var reading = []string{"CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH"}

// hiding returns the process without the effective capabilities by which it could read its own program, if that
// program's mode lets nobody read it. The kernel makes a process whose program it may not read as undumpable as prctl(2)
// does, from execve(2) on: would_dump in fs/exec.c, unless the sysctl fs.suid_dumpable is 1. execve(2) takes the new
// effective capabilities from the permitted and the ambient ones, so the program has those of its specification.
func hiding(l Launch) (*specs.Process, error) {
	info, err := l.Worker.Stat()
	if err != nil {
		return nil, fmt.Errorf("look at the worker: %w", err)
	}
	if info.Mode()&0o444 != 0 || l.Process.Capabilities == nil {
		return l.Process, nil
	}
	process, caps := *l.Process, *l.Process.Capabilities
	caps.Effective = slices.DeleteFunc(slices.Clone(caps.Effective), func(name string) bool { return slices.Contains(reading, name) })
	process.Capabilities = &caps
	return &process, nil
}

// forWorker returns a Wasm container's process with only the rights that its guest can
// use: the useful ones of its capabilities, and no new privileges by an exec, because the
// worker executes only itself.
func forWorker(process *specs.Process) (*specs.Process, error) {
	worker := *process
	worker.NoNewPrivileges = true
	if process.Capabilities == nil {
		return &worker, nil
	}
	caps := *process.Capabilities
	for _, set := range []*[]string{&caps.Bounding, &caps.Effective, &caps.Inheritable, &caps.Permitted, &caps.Ambient} {
		var err error
		if *set, err = onlyUseful(*set); err != nil {
			return nil, err
		}
	}
	worker.Capabilities = &caps
	return &worker, nil
}

func onlyUseful(names []string) ([]string, error) {
	var kept []string
	for _, name := range names {
		if _, err := capabilityByName(name); err != nil {
			return nil, err
		}
		if slices.Contains(useful, name) {
			kept = append(kept, name)
		}
	}
	return kept, nil
}

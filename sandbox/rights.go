package sandbox

import (
	"slices"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// useful are the capabilities that change what WASI's calls do to files. WASI has no
// call that any other is good for.
var useful = []string{"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH", "CAP_FOWNER", "CAP_FSETID"}

// restrict takes from the thread what a guest's worker and the preparer have no use
// for, whatever their specification grants, and returns the process to launch. A native
// program keeps what its specification says.
func (s *Sandbox) restrict(l Launch) (*specs.Process, error) {
	if l.Native {
		return l.Process, nil
	}
	if err := s.restrictFiles(); err != nil {
		return nil, err
	}
	return forWorker(l.Process)
}

// forWorker returns a Wasm container's process with no more rights than its guest can
// use: of its capabilities the useful ones, and never more by an exec, because the
// worker executes nothing but itself.
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

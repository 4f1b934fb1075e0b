package shim

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/wasmshim/containerd-shim-wasm/sandbox/cgroup"
)

// removeDeadPreparers ends the preparers whose daemon has died and removes their
// cgroups: nobody waits for what they compile, and nobody holds them to their time
// limit. A preparer's cgroup is named after its daemon (see preparerSpec).
func removeDeadPreparers() error {
	ids := map[string]bool{}
	for _, pattern := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/*"} {
		paths, err := filepath.Glob(pattern + preparerCgroup + "*")
		if err != nil {
			return fmt.Errorf("look for preparers: %w", err)
		}
		for _, path := range paths {
			if id, ok := strings.CutPrefix(filepath.Base(path), filepath.Base(preparerCgroup)); ok && isOrphan(id) {
				ids[id] = true
			}
		}
	}
	var failures []error
	for id := range ids {
		failures = append(failures, removePreparer(id))
	}
	return errors.Join(failures...)
}

// isOrphan reports whether the daemon that a preparer's id starts with is gone. One of
// another pid namespace, a second node on the same machine, cannot be looked for: its
// number means something else here.
func isOrphan(id string) bool {
	var pid int
	var namespace uint64
	if _, err := fmt.Sscanf(id, "%d-%d-", &pid, &namespace); err != nil || namespace != pidNamespace() {
		return false
	}
	// One that is ending, or that nobody has waited for yet, takes signals still, but
	// its program is gone (proc_pid_exe(5)). A dying process drops its memory before
	// it closes the connection whose end makes containerd run the delete verb.
	_, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid))
	return errors.Is(err, fs.ErrNotExist)
}

// pidNamespace returns the number of our own (namespaces(7)), or 0 if it cannot be read.
func pidNamespace() uint64 {
	var info unix.Stat_t
	if err := unix.Stat("/proc/self/ns/pid", &info); err != nil {
		return 0
	}
	return info.Ino
}

func removePreparer(id string) error {
	cg, err := cgroup.Load("compile", settings{}.preparerSpec(id), false)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		err = cg.Destroy()
	}
	if err != nil {
		return fmt.Errorf("remove preparer %s: %w", id, err)
	}
	return nil
}

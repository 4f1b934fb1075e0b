package sandbox

import (
	"fmt"
	"os"
	"strconv"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

var rlimits = map[string]int{
	"RLIMIT_AS": unix.RLIMIT_AS, "RLIMIT_CORE": unix.RLIMIT_CORE, "RLIMIT_CPU": unix.RLIMIT_CPU, "RLIMIT_DATA": unix.RLIMIT_DATA,
	"RLIMIT_FSIZE": unix.RLIMIT_FSIZE, "RLIMIT_LOCKS": unix.RLIMIT_LOCKS, "RLIMIT_MEMLOCK": unix.RLIMIT_MEMLOCK,
	"RLIMIT_MSGQUEUE": unix.RLIMIT_MSGQUEUE, "RLIMIT_NICE": unix.RLIMIT_NICE, "RLIMIT_NOFILE": unix.RLIMIT_NOFILE,
	"RLIMIT_NPROC": unix.RLIMIT_NPROC, "RLIMIT_RSS": unix.RLIMIT_RSS, "RLIMIT_RTPRIO": unix.RLIMIT_RTPRIO,
	"RLIMIT_RTTIME": unix.RLIMIT_RTTIME, "RLIMIT_SIGPENDING": unix.RLIMIT_SIGPENDING, "RLIMIT_STACK": unix.RLIMIT_STACK,
}

// Limit applies the limits that belong to a process and not to a thread, so they cannot be
// in place before the worker is born: process.rlimits and process.oomScoreAdj.
// The caller must call it before it lets the worker load guest code, and wait for the
// process only afterwards: until then the pid cannot be reused.
func Limit(pid int, process *specs.Process) error {
	if err := setRlimits(pid, process); err != nil {
		return err
	}
	if process.OOMScoreAdj == nil {
		return nil
	}
	path := fmt.Sprintf("/proc/%d/oom_score_adj", pid)
	if err := os.WriteFile(path, []byte(strconv.Itoa(*process.OOMScoreAdj)), 0); err != nil {
		return fmt.Errorf("set process.oomScoreAdj %d: %w", *process.OOMScoreAdj, err)
	}
	return nil
}

// setRlimits sets the limits of a process. Without CAP_SYS_RESOURCE the kernel
// requires the caller's real ids to be those of the process (prlimit(2)), so
// a thread that takes on the ids sets the limits of another user's process.
func setRlimits(pid int, process *specs.Process) error {
	user := process.User
	if len(process.Rlimits) == 0 || user.UID == 0 && user.GID == 0 {
		return prlimit(pid, process.Rlimits)
	}
	t := newThread()
	defer t.end()
	return t.do(func() error {
		for call, id := range map[uintptr]uint32{unix.SYS_SETRESGID: user.GID, unix.SYS_SETRESUID: user.UID} {
			const unchanged = ^uintptr(0)
			if _, _, errno := unix.RawSyscall(call, uintptr(id), unchanged, unchanged); errno != 0 {
				return fmt.Errorf("take on process.user to set process.rlimits: %w", errno)
			}
		}
		return prlimit(pid, process.Rlimits)
	})
}

func prlimit(pid int, limits []specs.POSIXRlimit) error {
	for _, r := range limits {
		resource, ok := rlimits[r.Type]
		if !ok {
			return fmt.Errorf("process.rlimits names %q, which is unknown", r.Type)
		}
		if err := unix.Prlimit(pid, resource, &unix.Rlimit{Cur: r.Soft, Max: r.Hard}, nil); err != nil {
			return fmt.Errorf("set process.rlimits %s to soft %d, hard %d: %w", r.Type, r.Soft, r.Hard, err)
		}
	}
	return nil
}

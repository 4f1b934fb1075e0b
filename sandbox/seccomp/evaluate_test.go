package seccomp

import (
	"slices"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// evaluate returns the profile's result for one call. It reads the profile entry by
// entry, and shares no code with the compiler: tests compare programs with it.
func evaluate(profile *specs.LinuxSeccomp, a *arch, d syscallData) uint32 {
	if d.arch != a.audit {
		return unix.SECCOMP_RET_KILL_PROCESS
	}
	if a.x32 && d.nr >= 0x40000000 {
		return unix.SECCOMP_RET_ERRNO | uint32(unix.ENOSYS)
	}
	fallback := code(profile.DefaultAction, profile.DefaultErrnoRet)

	var name string
	newest := int64(-1)
	for _, call := range a.calls {
		if call.nr == d.nr {
			name = call.name
		}
		if slices.ContainsFunc(profile.Syscalls, func(s specs.LinuxSyscall) bool { return slices.Contains(s.Names, call.name) }) {
			newest = max(newest, int64(call.nr))
		}
	}
	if newest >= 0 && int64(d.nr) > newest {
		switch profile.DefaultAction {
		case specs.ActAllow, specs.ActLog, specs.ActTrace:
			return fallback
		}
		return unix.SECCOMP_RET_ERRNO | uint32(unix.ENOSYS)
	}

	result, matched := fallback, false
	for _, entry := range profile.Syscalls {
		ret := code(entry.Action, entry.ErrnoRet)
		if ret == fallback || name == "" || !slices.Contains(entry.Names, name) {
			continue
		}
		if len(entry.Args) == 0 {
			return ret // an entry without conditions overrides all others
		}
		if holds(entry.Args, d.args) && (!matched || rank(ret) < rank(result)) {
			result, matched = ret, true
		}
	}
	return result
}

func holds(args []specs.LinuxSeccompArg, actual [maxArgs]uint64) bool {
	counts := map[uint]int{}
	matches := 0
	for _, arg := range args {
		counts[arg.Index]++
		if holdsOne(arg, actual[arg.Index]) {
			matches++
		}
	}
	for _, n := range counts {
		if n > 1 {
			return matches > 0
		}
	}
	return matches == len(args)
}

func holdsOne(arg specs.LinuxSeccompArg, actual uint64) bool {
	switch arg.Op {
	case specs.OpEqualTo:
		return actual == arg.Value
	case specs.OpNotEqual:
		return actual != arg.Value
	case specs.OpLessThan:
		return actual < arg.Value
	case specs.OpLessEqual:
		return actual <= arg.Value
	case specs.OpGreaterThan:
		return actual > arg.Value
	case specs.OpGreaterEqual:
		return actual >= arg.Value
	case specs.OpMaskedEqual:
		return actual&arg.Value == arg.ValueTwo&arg.Value
	}
	panic("unknown operator " + arg.Op)
}

func code(action specs.LinuxSeccompAction, errno *uint) uint32 {
	value := uint32(unix.EPERM)
	if errno != nil {
		value = uint32(*errno)
	}
	switch action {
	case specs.ActAllow:
		return unix.SECCOMP_RET_ALLOW
	case specs.ActErrno:
		return unix.SECCOMP_RET_ERRNO | value
	case specs.ActTrace:
		return unix.SECCOMP_RET_TRACE | value
	case specs.ActKill, specs.ActKillThread:
		return unix.SECCOMP_RET_KILL_THREAD
	case specs.ActKillProcess:
		return unix.SECCOMP_RET_KILL_PROCESS
	case specs.ActTrap:
		return unix.SECCOMP_RET_TRAP
	case specs.ActLog:
		return unix.SECCOMP_RET_LOG
	}
	panic("unknown action " + action)
}

// rank returns the place of an action in the order of seccomp(2), the strictest first.
func rank(ret uint32) int {
	return slices.Index([]uint32{
		unix.SECCOMP_RET_KILL_PROCESS, unix.SECCOMP_RET_KILL_THREAD, unix.SECCOMP_RET_TRAP,
		unix.SECCOMP_RET_ERRNO, unix.SECCOMP_RET_TRACE, unix.SECCOMP_RET_LOG, unix.SECCOMP_RET_ALLOW,
	}, ret&unix.SECCOMP_RET_ACTION_FULL)
}

// calls returns calls that reveal a wrong program for profile. They have every number
// of a and some unused ones, and arguments equal and close to every value that a
// condition of the syscall compares with.
func calls(profile *specs.LinuxSeccomp, a *arch) []syscallData {
	var out []syscallData
	for nr := range uint32(600) {
		out = append(out, syscallData{arch: a.audit, nr: nr})
	}
	for _, nr := range []uint32{0x3fffffff, 0x40000000, 0x40000001, 0x40000200, 0x7fffffff, 0x80000000, 0xffffffff} {
		out = append(out, syscallData{arch: a.audit, nr: nr})
	}
	for _, foreign := range []uint32{0, unix.AUDIT_ARCH_I386, unix.AUDIT_ARCH_ARM, unix.AUDIT_ARCH_X86_64, unix.AUDIT_ARCH_AARCH64} {
		out = append(out, syscallData{arch: foreign})
	}
	for _, entry := range profile.Syscalls {
		for _, name := range entry.Names {
			nr, known := a.lookup(name)
			if !known || len(entry.Args) == 0 {
				continue
			}
			out = append(out, around(syscallData{arch: a.audit, nr: nr}, entry.Args)...)
		}
	}
	return out
}

func around(base syscallData, args []specs.LinuxSeccompArg) []syscallData {
	variants := []syscallData{base}
	for _, arg := range args {
		var next []syscallData
		for _, v := range variants {
			for _, value := range interesting(arg) {
				w := v
				w.args[arg.Index] = value
				next = append(next, w)
			}
		}
		variants = next
		if len(variants) > 4000 {
			variants = variants[:4000]
		}
	}
	return variants
}

func interesting(arg specs.LinuxSeccompArg) []uint64 {
	v, w := arg.Value, arg.ValueTwo
	return []uint64{
		v, v - 1, v + 1, w, ^v, 0, 1, ^uint64(0),
		v ^ 1<<32, v + 1<<32, v - 1<<32, v << 32, v >> 32, w | 1<<40, v & w, w&v | 1<<63,
	}
}

package seccomp

import (
	"fmt"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// policy is a validated profile, with the kernel's constants.
type policy struct {
	arch     *arch
	flags    uint32 // SECCOMP_FILTER_FLAG_*
	fallback uint32 // SECCOMP_RET_* for calls that no rule matches
	rules    [][]rule
	// If hideNewest, calls with a number above newest return ENOSYS. See parse.
	newest     uint32
	hideNewest bool
}

// rule is one alternative of a syscall: when all conditions hold, the filter
// returns ret. A rule without conditions always matches.
type rule struct {
	conditions []condition
	ret        uint32
}

type condition struct {
	arg   uint32
	op    specs.LinuxSeccompOperator
	value uint64
	mask  uint64 // for SCMP_CMP_MASKED_EQ
}

const (
	// maxErrno is the highest errno that a filter can return. The kernel caps a
	// higher one (MAX_ERRNO in include/linux/err.h).
	maxErrno = 4095
	maxArgs  = 6
)

// parse validates profile and groups its rules by the syscall numbers of a.
func parse(profile *specs.LinuxSeccomp, a *arch) (*policy, error) {
	if profile.ListenerPath != "" {
		return nil, unsupported("linux.seccomp.listenerPath", "user notification is not supported")
	}
	if profile.ListenerMetadata != "" {
		return nil, unsupported("linux.seccomp.listenerMetadata", "user notification is not supported")
	}
	flags, err := parseFlags(profile.Flags)
	if err != nil {
		return nil, err
	}
	if err := checkArchitectures(profile.Architectures); err != nil {
		return nil, err
	}
	fallback, err := parseAction("linux.seccomp.defaultAction", "linux.seccomp.defaultErrnoRet",
		profile.DefaultAction, profile.DefaultErrnoRet)
	if err != nil {
		return nil, err
	}

	p := &policy{arch: a, flags: flags, fallback: fallback}
	for i := range profile.Syscalls {
		if err := p.add(i, &profile.Syscalls[i]); err != nil {
			return nil, err
		}
	}
	// A profile cannot list syscalls that are newer than itself. If they returned
	// EPERM, a libc that tries a new call and falls back to an old one on ENOSYS
	// would fail. So runc returns ENOSYS for numbers above the highest number that
	// the profile mentions, with any action (libcontainer/seccomp/patchbpf). It
	// does not if the default action permits calls, or if the profile mentions no
	// syscall.
	p.hideNewest = p.rules != nil && !permissive(fallback)
	return p, nil
}

// add adds the rules of entry i of the profile's syscalls to the policy.
func (p *policy) add(i int, entry *specs.LinuxSyscall) error {
	if len(entry.Names) == 0 {
		return fmt.Errorf("linux.seccomp.syscalls[%d].names: must name at least one syscall", i)
	}
	ret, err := parseAction(fmt.Sprintf("linux.seccomp.syscalls[%d].action", i),
		fmt.Sprintf("linux.seccomp.syscalls[%d].errnoRet", i), entry.Action, entry.ErrnoRet)
	if err != nil {
		return err
	}
	alternatives, err := parseArgs(i, entry.Args, ret)
	if err != nil {
		return err
	}
	for _, name := range entry.Names {
		if name == "" {
			return fmt.Errorf("linux.seccomp.syscalls[%d].names: a name is empty", i)
		}
		nr, known := p.arch.lookup(name)
		if !known {
			continue
		}
		p.mention(nr)
		// libseccomp refuses rules with the default action, so runc leaves them
		// out.
		if ret != p.fallback {
			p.rules[nr] = append(p.rules[nr], alternatives...)
		}
	}
	return nil
}

func (p *policy) mention(nr uint32) {
	if need := int(nr) + 1 - len(p.rules); need > 0 {
		p.rules = append(p.rules, make([][]rule, need)...)
	}
	p.newest = max(p.newest, nr)
}

// parseArgs returns the alternatives that args mean: one rule with all conditions
// or, when one argument has several conditions, one rule for each condition. runc
// has done the latter since its first release with seccomp (matchCall in
// libcontainer/seccomp), and profiles rely on it.
func parseArgs(i int, args []specs.LinuxSeccompArg, ret uint32) ([]rule, error) {
	var (
		conditions []condition
		seen       [maxArgs]bool
		repeated   bool
	)
	for j, arg := range args {
		field := fmt.Sprintf("linux.seccomp.syscalls[%d].args[%d]", i, j)
		if arg.Index >= maxArgs {
			return nil, fmt.Errorf("%s.index: %d is above %d, a syscall's last argument", field, arg.Index, maxArgs-1)
		}
		c := condition{arg: uint32(arg.Index), op: arg.Op, value: arg.Value}
		switch arg.Op {
		case specs.OpEqualTo, specs.OpNotEqual, specs.OpLessThan, specs.OpLessEqual,
			specs.OpGreaterThan, specs.OpGreaterEqual:
		case specs.OpMaskedEqual:
			// libseccomp does not compare bits outside of the mask: they would
			// never be equal.
			c.mask, c.value = arg.Value, arg.ValueTwo&arg.Value
		default:
			return nil, fmt.Errorf("%s.op: unknown operator %q", field, arg.Op)
		}
		repeated = repeated || seen[arg.Index]
		seen[arg.Index] = true
		conditions = append(conditions, c)
	}
	if !repeated {
		return []rule{{conditions, ret}}, nil
	}
	alternatives := make([]rule, len(conditions))
	for j := range conditions {
		alternatives[j] = rule{conditions[j : j+1], ret}
	}
	return alternatives, nil
}

// parseAction returns the filter's return value for an action with an optional
// errno. field and errnoField name them in errors.
func parseAction(field, errnoField string, action specs.LinuxSeccompAction, errno *uint) (uint32, error) {
	var ret uint32
	switch action {
	case specs.ActErrno, specs.ActTrace:
		return withErrno(errnoField, action, errno)
	case specs.ActAllow:
		ret = unix.SECCOMP_RET_ALLOW
	case specs.ActKill, specs.ActKillThread:
		ret = unix.SECCOMP_RET_KILL_THREAD
	case specs.ActKillProcess:
		ret = unix.SECCOMP_RET_KILL_PROCESS
	case specs.ActTrap:
		ret = unix.SECCOMP_RET_TRAP
	case specs.ActLog:
		ret = unix.SECCOMP_RET_LOG
	case specs.ActNotify:
		return 0, unsupported(field, "user notification (SCMP_ACT_NOTIFY) is not supported")
	default:
		return 0, fmt.Errorf("%s: unknown action %q", field, action)
	}
	if errno != nil {
		return 0, fmt.Errorf("%s: action %s returns no errno", errnoField, action)
	}
	return ret, nil
}

func withErrno(field string, action specs.LinuxSeccompAction, errno *uint) (uint32, error) {
	ret, limit := uint32(unix.SECCOMP_RET_ERRNO), uint(maxErrno)
	if action == specs.ActTrace {
		ret, limit = unix.SECCOMP_RET_TRACE, unix.SECCOMP_RET_DATA
	}
	if errno == nil {
		return ret | uint32(unix.EPERM), nil
	}
	if *errno > limit {
		return 0, fmt.Errorf("%s: %d is above %d, the highest value that %s can return", field, *errno, limit, action)
	}
	return ret | uint32(*errno), nil
}

// parseFlags returns SECCOMP_FILTER_FLAG_*. If the profile has no list of flags, not
// even an empty one, runc disables the mitigation of speculative store bypass for the
// container: it is expensive on kernels before 5.16. parseFlags does the same.
func parseFlags(flags []specs.LinuxSeccompFlag) (uint32, error) {
	if flags == nil {
		return unix.SECCOMP_FILTER_FLAG_SPEC_ALLOW, nil
	}
	var bits uint32
	for i, flag := range flags {
		switch flag {
		case "SECCOMP_FILTER_FLAG_TSYNC":
			// The container has no other thread yet to which the filter must be applied.
		case specs.LinuxSeccompFlagLog:
			bits |= unix.SECCOMP_FILTER_FLAG_LOG
		case specs.LinuxSeccompFlagSpecAllow:
			bits |= unix.SECCOMP_FILTER_FLAG_SPEC_ALLOW
		case specs.LinuxSeccompFlagWaitKillableRecv:
			return 0, unsupported(fmt.Sprintf("linux.seccomp.flags[%d]", i),
				string(flag)+" needs user notification, which is not supported")
		default:
			return 0, fmt.Errorf("linux.seccomp.flags[%d]: unknown flag %q", i, flag)
		}
	}
	return bits, nil
}

// checkArchitectures refuses names that the runtime spec does not define. The others
// have no effect: see the package comment.
func checkArchitectures(names []specs.Arch) error {
	for i, name := range names {
		switch name {
		case specs.ArchX86, specs.ArchX86_64, specs.ArchX32, specs.ArchARM, specs.ArchAARCH64,
			specs.ArchMIPS, specs.ArchMIPS64, specs.ArchMIPS64N32,
			specs.ArchMIPSEL, specs.ArchMIPSEL64, specs.ArchMIPSEL64N32,
			specs.ArchPPC, specs.ArchPPC64, specs.ArchPPC64LE, specs.ArchS390, specs.ArchS390X,
			specs.ArchPARISC, specs.ArchPARISC64, specs.ArchRISCV64, specs.ArchLOONGARCH64,
			specs.ArchM68K, specs.ArchSH, specs.ArchSHEB:
		default:
			return fmt.Errorf("linux.seccomp.architectures[%d]: unknown architecture %q", i, name)
		}
	}
	return nil
}

// permissive reports whether a call with this result can be executed. That includes
// SECCOMP_RET_TRACE: the tracer is expected to handle new calls.
func permissive(ret uint32) bool {
	switch ret & unix.SECCOMP_RET_ACTION_FULL {
	case unix.SECCOMP_RET_ALLOW, unix.SECCOMP_RET_LOG, unix.SECCOMP_RET_TRACE:
		return true
	}
	return false
}

func unsupported(field, why string) error {
	return fmt.Errorf("%s: %s", field, why)
}

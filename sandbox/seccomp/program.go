package seccomp

import (
	"cmp"
	"fmt"
	"slices"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// Classic BPF has only forward jumps. They count instructions from the next one on, and
// a conditional jump can skip at most 255. So a program is built from fragments,
// starting with the last one: the number of instructions after a fragment is known when
// it is built. A fragment either returns or continues with the code after it.

// Offsets in struct seccomp_data (include/uapi/linux/seccomp.h).
const (
	offsetNr   = 0
	offsetArch = 4
	offsetArgs = 16
)

const retENOSYS = unix.SECCOMP_RET_ERRNO | uint32(unix.ENOSYS)

type fragment = []unix.SockFilter

// span is a range of syscall numbers with the same code, from first up to the first of
// the next span (exclusive).
type span struct {
	first uint32
	rules []rule
}

// assemble returns the program for p: at most 4096 instructions, the kernel's
// limit.
func assemble(p *policy) ([]unix.SockFilter, error) {
	program := fragment{
		load(offsetArch),
		jump(unix.BPF_JEQ, p.arch.audit, 1, 0),
		ret(unix.SECCOMP_RET_KILL_PROCESS),
		load(offsetNr),
	}
	program = append(program, search(p.spans())...)
	if len(program) > unix.BPF_MAXINSNS {
		return nil, fmt.Errorf("linux.seccomp.syscalls: the filter needs %d instructions, the kernel takes %d: use fewer conditional rules",
			len(program), unix.BPF_MAXINSNS)
	}
	return program, nil
}

// spans returns the spans of p in ascending order, from syscall 0 on.
func (p *policy) spans() []span {
	fallback := []rule{{ret: p.fallback}}
	spans := []span{{0, fallback}}
	add := func(first uint32, rules []rule) {
		last := &spans[len(spans)-1]
		switch {
		case equivalent(last.rules, rules):
		case last.first == first:
			last.rules = rules
		default:
			spans = append(spans, span{first, rules})
		}
	}
	for nr, rules := range p.rules {
		add(uint32(nr), p.resolve(rules))
	}
	unknown := fallback
	if p.hideNewest {
		unknown = []rule{{ret: retENOSYS}}
	}
	if p.rules != nil {
		add(p.newest+1, unknown)
	}
	if p.arch.x32 {
		add(x32Bit, []rule{{ret: retENOSYS}})
	}
	return spans
}

// resolve orders the rules of one syscall so that the first match decides. The last
// rule always matches. As in libseccomp, the first rule without conditions overrides
// all other rules of the syscall. Conditional rules are ordered by action, the
// strictest first: the kernel's action numbers, read as signed integers, are ordered by
// strictness (seccomp_run_filters).
func (p *policy) resolve(rules []rule) []rule {
	for _, r := range rules {
		if len(r.conditions) == 0 {
			return []rule{r}
		}
	}
	ordered := make([]rule, len(rules), len(rules)+1)
	copy(ordered, rules)
	slices.SortStableFunc(ordered, func(a, b rule) int {
		return cmp.Compare(strictness(a.ret), strictness(b.ret))
	})
	return append(ordered, rule{ret: p.fallback})
}

// strictness returns a number for the action of ret. A stricter action has a lower one.
func strictness(ret uint32) int32 {
	return int32(ret & unix.SECCOMP_RET_ACTION_FULL)
}

func equivalent(a, b []rule) bool {
	return slices.EqualFunc(a, b, func(a, b rule) bool {
		return a.ret == b.ret && slices.Equal(a.conditions, b.conditions)
	})
}

// search returns the code that finds the span of the loaded syscall number. The code
// is a balanced tree: a usual profile needs eight comparisons.
func search(spans []span) fragment {
	if len(spans) == 1 {
		return body(spans[0].rules)
	}
	middle := len(spans) / 2
	lower, upper := search(spans[:middle]), search(spans[middle:])
	code := make(fragment, 0, 2+len(lower)+len(upper))
	if len(lower) <= 255 {
		code = append(code, jump(unix.BPF_JGE, spans[middle].first, uint8(len(lower)), 0))
	} else {
		code = append(code, jump(unix.BPF_JGE, spans[middle].first, 0, 1), always(uint32(len(lower))))
	}
	code = append(code, lower...)
	return append(code, upper...)
}

// body returns the code for rules that resolve has ordered. It always returns.
func body(rules []rule) fragment {
	var code fragment
	for _, r := range rules {
		code = append(code, alternative(r)...)
	}
	return code
}

// alternative returns the code of one rule. The code returns the rule's action when all
// conditions hold, and otherwise continues with the code after it. A rule has at most
// one condition for each argument, so no jump is too long.
func alternative(r rule) fragment {
	code := fragment{ret(r.ret)}
	for _, c := range slices.Backward(r.conditions) {
		code = append(test(c, uint8(len(code))), code...)
	}
	return code
}

// test returns the code of one condition. The code continues after itself when c holds,
// and skips skip more instructions when it does not. Arguments have 64 bits, the BPF
// machine has 32: the code compares the higher half first, then the lower one.
func test(c condition, skip uint8) fragment {
	low := offsetArgs + 8*c.arg
	high := low + 4 // both architectures are little-endian
	valueHigh, valueLow := uint32(c.value>>32), uint32(c.value)
	switch c.op {
	case specs.OpMaskedEqual:
		return testMasked(c, skip)
	case specs.OpEqualTo:
		return fragment{
			load(high), jump(unix.BPF_JEQ, valueHigh, 0, skip+2),
			load(low), jump(unix.BPF_JEQ, valueLow, 0, skip),
		}
	case specs.OpNotEqual:
		return fragment{
			load(high), jump(unix.BPF_JEQ, valueHigh, 0, 2),
			load(low), jump(unix.BPF_JEQ, valueLow, skip, 0),
		}
	case specs.OpGreaterThan:
		return testAbove(c, unix.BPF_JGT, skip)
	case specs.OpGreaterEqual:
		return testAbove(c, unix.BPF_JGE, skip)
	case specs.OpLessThan:
		return testBelow(c, unix.BPF_JGE, skip)
	default: // specs.OpLessEqual: parseArgs refuses all others
		return testBelow(c, unix.BPF_JGT, skip)
	}
}

// testAbove returns code that holds when the higher half is greater than that of
// c.value, or when the higher halves are equal and the comparison op of the lower
// halves holds.
func testAbove(c condition, op uint16, skip uint8) fragment {
	low := offsetArgs + 8*c.arg
	return fragment{
		load(low + 4), jump(unix.BPF_JGT, uint32(c.value>>32), 3, 0),
		jump(unix.BPF_JEQ, uint32(c.value>>32), 0, skip+2),
		load(low), jump(op, uint32(c.value), 0, skip),
	}
}

// testBelow returns code that holds when the higher half is less than that of c.value,
// or when the higher halves are equal and the comparison op of the lower halves does
// not hold.
func testBelow(c condition, op uint16, skip uint8) fragment {
	low := offsetArgs + 8*c.arg
	return fragment{
		load(low + 4), jump(unix.BPF_JGT, uint32(c.value>>32), skip+3, 0),
		jump(unix.BPF_JEQ, uint32(c.value>>32), 0, 2),
		load(low), jump(op, uint32(c.value), skip, 0),
	}
}

// testMasked returns code that holds when the bits of c.mask are equal to those in
// c.value. A half with no bit of the mask needs no code.
func testMasked(c condition, skip uint8) fragment {
	var code fragment
	low := offsetArgs + 8*c.arg
	if mask := uint32(c.mask); mask != 0 {
		code = fragment{load(low), and(mask), jump(unix.BPF_JEQ, uint32(c.value), 0, skip)}
	}
	if mask := uint32(c.mask >> 32); mask != 0 {
		rest := skip + uint8(len(code))
		code = append(fragment{load(low + 4), and(mask), jump(unix.BPF_JEQ, uint32(c.value>>32), 0, rest)}, code...)
	}
	return code
}

func load(offset uint32) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: offset}
}

func and(mask uint32) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_ALU | unix.BPF_AND | unix.BPF_K, K: mask}
}

func jump(op uint16, value uint32, ifTrue, ifFalse uint8) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_K | op, K: value, Jt: ifTrue, Jf: ifFalse}
}

func always(skip uint32) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JA, K: skip}
}

func ret(value uint32) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: value}
}

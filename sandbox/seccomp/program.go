package seccomp

import (
	"cmp"
	"fmt"
	"slices"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// Classic BPF has forward jumps only, counted in instructions from the next one
// on, and conditional jumps of at most 255. So programs are put together from
// fragments, the end first: a fragment either returns or falls off its end, and
// knows how much follows it.

// Offsets in struct seccomp_data (include/uapi/linux/seccomp.h).
const (
	offsetNr   = 0
	offsetArch = 4
	offsetArgs = 16
)

const retENOSYS = unix.SECCOMP_RET_ERRNO | uint32(unix.ENOSYS)

type fragment = []unix.SockFilter

// span is a run of syscall numbers, from first up to the next span's, that the
// filter answers with the same code.
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

// resolve orders the rules of one syscall so that the first that matches
// decides, and ends them with one that always matches. As in libseccomp, the
// first rule without conditions makes all others of the syscall void. Among
// conditional rules, the strictest action comes first: the kernel's numbers
// are ordered by strictness when taken as signed (seccomp_run_filters).
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

// strictness is lower the stricter the action of ret is.
func strictness(ret uint32) int32 {
	return int32(ret & unix.SECCOMP_RET_ACTION_FULL)
}

func equivalent(a, b []rule) bool {
	return slices.EqualFunc(a, b, func(a, b rule) bool {
		return a.ret == b.ret && slices.Equal(a.conditions, b.conditions)
	})
}

// search returns the code that finds the span of the loaded syscall number, as
// a balanced tree: eight comparisons for a usual profile.
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

// alternative returns the code of one rule: it returns the rule's action when
// all conditions hold, and falls off its end otherwise. A rule has at most one
// condition for each argument, so that no jump is too long.
func alternative(r rule) fragment {
	code := fragment{ret(r.ret)}
	for _, c := range slices.Backward(r.conditions) {
		code = append(test(c, uint8(len(code))), code...)
	}
	return code
}

// test returns code that falls off its end when c holds and skips as many
// instructions more when it does not. Arguments have 64 bits, the machine has
// 32: the halves are compared one after the other, the higher one first.
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
	default: // specs.OpLessEqual: parseArgs knows no other
		return testBelow(c, unix.BPF_JGT, skip)
	}
}

// testAbove holds when the argument is above c.value, by the comparison op of
// the lower halves.
func testAbove(c condition, op uint16, skip uint8) fragment {
	low := offsetArgs + 8*c.arg
	return fragment{
		load(low + 4), jump(unix.BPF_JGT, uint32(c.value>>32), 3, 0),
		jump(unix.BPF_JEQ, uint32(c.value>>32), 0, skip+2),
		load(low), jump(op, uint32(c.value), 0, skip),
	}
}

// testBelow holds when the comparison op of the lower halves does not, the
// higher halves being equal, or when the higher half is lower.
func testBelow(c condition, op uint16, skip uint8) fragment {
	low := offsetArgs + 8*c.arg
	return fragment{
		load(low + 4), jump(unix.BPF_JGT, uint32(c.value>>32), skip+3, 0),
		jump(unix.BPF_JEQ, uint32(c.value>>32), 0, 2),
		load(low), jump(op, uint32(c.value), skip, 0),
	}
}

// testMasked holds when the bits of c.mask are as in c.value. A half that the
// mask does not reach needs no code.
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

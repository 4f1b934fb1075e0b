package seccomp

import (
	"encoding/binary"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	containerd "github.com/containerd/containerd/v2/contrib/seccomp"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

var architectures = map[string]*arch{
	"x86_64":  {audit: unix.AUDIT_ARCH_X86_64, calls: callsX86_64[:], x32: true},
	"aarch64": {audit: unix.AUDIT_ARCH_AARCH64, calls: callsAArch64[:]},
}

func ptr[T any](v T) *T { return &v }

// defaultProfile returns containerd's default profile for a container with caps.
func defaultProfile(caps ...string) *specs.LinuxSeccomp {
	return containerd.DefaultProfile(&specs.Spec{
		Process: &specs.Process{Capabilities: &specs.LinuxCapabilities{Bounding: caps}},
		Linux:   &specs.Linux{},
	})
}

// profiles cover every action, operator and way of combining rules.
func profiles() map[string]*specs.LinuxSeccomp {
	list := map[string]*specs.LinuxSeccomp{
		"containerd's default": defaultProfile(),
		"containerd's default, with capabilities": defaultProfile(
			"CAP_SYS_ADMIN", "CAP_SYS_PTRACE", "CAP_NET_ADMIN", "CAP_SYS_CHROOT"),
		"deny list": {
			DefaultAction: specs.ActAllow,
			Syscalls: []specs.LinuxSyscall{
				{Names: []string{"mount", "umount2"}, Action: specs.ActErrno},
				{Names: []string{"ptrace"}, Action: specs.ActKillProcess},
				{Names: []string{"kexec_load"}, Action: specs.ActKill},
				{Names: []string{"bpf"}, Action: specs.ActTrap},
				{Names: []string{"swapon"}, Action: specs.ActTrace, ErrnoRet: ptr(uint(300))},
				{Names: []string{"swapoff"}, Action: specs.ActLog},
			},
		},
		"kill all but one": {
			DefaultAction: specs.ActKillThread,
			Syscalls:      []specs.LinuxSyscall{{Names: []string{"exit_group"}, Action: specs.ActAllow}},
		},
		"only unknown names": {
			DefaultAction: specs.ActErrno, DefaultErrnoRet: ptr(uint(13)),
			Syscalls: []specs.LinuxSyscall{{Names: []string{"no_such_call"}, Action: specs.ActAllow}},
		},
		"no rules": {DefaultAction: specs.ActLog},
		"newest call is denied": {
			DefaultAction: specs.ActErrno,
			Syscalls: []specs.LinuxSyscall{
				{Names: []string{"read", "write"}, Action: specs.ActAllow},
				{Names: []string{"openat2"}, Action: specs.ActErrno},
			},
		},
		"alternatives of one call": {
			DefaultAction: specs.ActErrno,
			Syscalls: []specs.LinuxSyscall{
				{Names: []string{"personality"}, Action: specs.ActAllow, Args: []specs.LinuxSeccompArg{{Op: specs.OpEqualTo, Value: 8}}},
				{Names: []string{"personality"}, Action: specs.ActAllow, Args: []specs.LinuxSeccompArg{{Op: specs.OpEqualTo, Value: 0xffffffff}}},
				{Names: []string{"personality"}, Action: specs.ActAllow, Args: []specs.LinuxSeccompArg{{Op: specs.OpGreaterThan, Value: 1 << 40}}},
			},
		},
		"one argument twice": {
			DefaultAction: specs.ActErrno,
			Syscalls: []specs.LinuxSyscall{{
				Names: []string{"personality"}, Action: specs.ActAllow,
				Args: []specs.LinuxSeccompArg{
					{Op: specs.OpEqualTo, Value: 8}, {Op: specs.OpEqualTo, Value: 1 << 33}, {Index: 1, Op: specs.OpLessThan, Value: 3}},
			}},
		},
		"without conditions last": {
			DefaultAction: specs.ActErrno,
			Syscalls: []specs.LinuxSyscall{
				{Names: []string{"personality"}, Action: specs.ActTrap, Args: []specs.LinuxSeccompArg{{Op: specs.OpEqualTo, Value: 8}}},
				{Names: []string{"personality"}, Action: specs.ActAllow},
				{Names: []string{"personality"}, Action: specs.ActKill},
			},
		},
	}
	for _, op := range []specs.LinuxSeccompOperator{
		specs.OpEqualTo, specs.OpNotEqual, specs.OpLessThan, specs.OpLessEqual,
		specs.OpGreaterThan, specs.OpGreaterEqual, specs.OpMaskedEqual,
	} {
		for _, value := range []uint64{0, 1, 0x7fffffff, 0xffffffff, 1 << 32, 0x1234_5678_9abc_def0, 1<<63 | 5, ^uint64(0)} {
			list[string(op)+" "+itoa(value)] = &specs.LinuxSeccomp{
				DefaultAction: specs.ActErrno,
				Syscalls: []specs.LinuxSyscall{{
					Names: []string{"ioctl", "fcntl"}, Action: specs.ActAllow,
					Args: []specs.LinuxSeccompArg{
						{Index: 5, Op: op, Value: value, ValueTwo: value & 0xf0f0f0f0_0f0f0f0f},
						{Index: 0, Op: op, Value: value, ValueTwo: value & 0x00ff00ff_ff00ff00},
					},
				}},
			}
		}
	}
	return list
}

func compileFor(t testing.TB, profile *specs.LinuxSeccomp, a *arch) []unix.SockFilter {
	t.Helper()
	p, err := parse(profile, a)
	if err != nil {
		t.Fatal(err)
	}
	program, err := assemble(p)
	if err != nil {
		t.Fatal(err)
	}
	return program
}

func TestProgramsAnswerAsTheProfileSays(t *testing.T) {
	for name, profile := range profiles() {
		for archName, a := range architectures {
			program := simulate(t, compileFor(t, profile, a))
			for _, call := range calls(profile, a) {
				if got, want := program.run(t, call), evaluate(profile, a, call); got != want {
					t.Errorf("%q on %s: %+v answers %#x, want %#x", name, archName, call, got, want)
				}
			}
		}
	}
}

// TestProgramsAnswerAsLibseccomp compares our programs with the filters that
// libseccomp generates, for all calls of the native ABI that both know.
func TestProgramsAnswerAsLibseccomp(t *testing.T) {
	generator := buildC(t, "testdata/libseccomp.c", "-lseccomp")
	for name, profile := range profiles() {
		for archName, a := range architectures {
			reference, known := libseccomp(t, generator, archName, a, profile)
			if len(known) < 290 {
				t.Fatalf("libseccomp knows only %d syscalls of %s", len(known), archName)
			}
			ours, theirs := simulate(t, compileFor(t, profile, a)), simulate(t, reference)
			for _, call := range calls(profile, a) {
				if call.arch != a.audit || !known[call.nr] || hidden(t, profile, a, call.nr) {
					continue
				}
				if got, want := ours.run(t, call), theirs.run(t, call); got != want {
					t.Errorf("%q on %s: %+v answers %#x, libseccomp's filter %#x", name, archName, call, got, want)
				}
			}
		}
	}
}

// hidden reports whether nr returns ENOSYS because it is newer than the profile.
// runc adds this check in front of libseccomp's filter.
func hidden(t *testing.T, profile *specs.LinuxSeccomp, a *arch, nr uint32) bool {
	t.Helper()
	p, err := parse(profile, a)
	if err != nil {
		t.Fatal(err)
	}
	return p.hideNewest && nr > p.newest
}

// libseccomp runs the generator, which makes a filter from profile as runc does. It
// returns the filter and the numbers of the syscalls that libseccomp knows. The test
// fails when libseccomp and our table have different numbers for a name.
func libseccomp(t *testing.T, generator, archName string, a *arch, profile *specs.LinuxSeccomp) ([]unix.SockFilter, map[uint32]bool) {
	t.Helper()
	fallback := code(profile.DefaultAction, profile.DefaultErrnoRet)
	input, table := ruleLines(profile, fallback), ""
	for _, call := range a.calls {
		table += "name " + call.name + "\n"
	}
	dir := t.TempDir()
	filter := filepath.Join(dir, "filter")
	command := exec.Command(generator, archName, itoa(uint64(fallback)), filter)
	command.Stdin = strings.NewReader(table + input)
	command.Stderr = os.Stderr
	output, err := command.Output()
	if err != nil {
		t.Fatalf("generate with libseccomp: %v", err)
	}
	known := map[uint32]bool{}
	lines := strings.Fields(string(output))
	if len(lines) != len(a.calls) {
		t.Fatalf("libseccomp resolved %d names of %d", len(lines), len(a.calls))
	}
	for i, line := range lines {
		if line[0] == '-' {
			continue // this libseccomp does not know the syscall
		}
		if want := itoa(uint64(a.calls[i].nr)); line != want {
			t.Errorf("%s on %s is %s in our table, %s in libseccomp's", a.calls[i].name, archName, want, line)
		}
		known[a.calls[i].nr] = true
	}
	return readFilter(t, filter), known
}

// ruleLines returns, for profile, the generator's input lines: one for each of runc's
// calls of seccomp_rule_add_array (matchCall in
// libcontainer/seccomp/seccomp_linux.go).
func ruleLines(profile *specs.LinuxSeccomp, fallback uint32) string {
	var b strings.Builder
	for _, entry := range profile.Syscalls {
		ret := code(entry.Action, entry.ErrnoRet)
		if ret == fallback {
			continue
		}
		sets := [][]specs.LinuxSeccompArg{entry.Args}
		indexes := map[uint]bool{}
		for _, arg := range entry.Args {
			indexes[arg.Index] = true
		}
		if len(indexes) < len(entry.Args) {
			sets = nil
			for i := range entry.Args {
				sets = append(sets, entry.Args[i:i+1])
			}
		}
		for _, name := range entry.Names {
			for _, set := range sets {
				b.WriteString("rule " + name + " " + itoa(uint64(ret)) + " " + itoa(uint64(len(set))))
				for _, arg := range set {
					b.WriteString(" " + itoa(uint64(arg.Index)) + " " + strings.TrimPrefix(string(arg.Op), "SCMP_CMP_") +
						" " + itoa(arg.Value) + " " + itoa(arg.ValueTwo))
				}
				b.WriteString("\n")
			}
		}
	}
	return b.String()
}

func readFilter(t *testing.T, path string) []unix.SockFilter {
	t.Helper()
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	program := make([]unix.SockFilter, len(raw)/8)
	for i := range program {
		in := raw[8*i:]
		program[i] = unix.SockFilter{
			Code: binary.NativeEndian.Uint16(in), Jt: in[2], Jf: in[3], K: binary.NativeEndian.Uint32(in[4:]),
		}
	}
	return program
}

// buildC compiles one C file for this machine.
func buildC(t *testing.T, source string, args ...string) string {
	t.Helper()
	binary := filepath.Join(t.TempDir(), "program")
	output, err := exec.Command("gcc", append([]string{"-Wall", "-Werror", "-o", binary, source}, args...)...).CombinedOutput()
	if err != nil {
		t.Fatalf("gcc %s: %v\n%s", source, err, output)
	}
	return binary
}

// TestConflictingConditions checks the one case in which a program differs from
// libseccomp's (see the package comment).
func TestConflictingConditions(t *testing.T) {
	profile := &specs.LinuxSeccomp{
		DefaultAction: specs.ActErrno,
		Syscalls: []specs.LinuxSyscall{
			{Names: []string{"socket"}, Action: specs.ActAllow, Args: []specs.LinuxSeccompArg{{Op: specs.OpGreaterEqual, Value: 2}}},
			{Names: []string{"socket"}, Action: specs.ActKillProcess, Args: []specs.LinuxSeccompArg{{Op: specs.OpEqualTo, Value: 40}}},
			{Names: []string{"socket"}, Action: specs.ActTrap, Args: []specs.LinuxSeccompArg{{Op: specs.OpLessEqual, Value: 40}}},
		},
	}
	for name, a := range architectures {
		program := simulate(t, compileFor(t, profile, a))
		nr, _ := a.lookup("socket")
		for domain, want := range map[uint64]uint32{
			40: unix.SECCOMP_RET_KILL_PROCESS, 39: unix.SECCOMP_RET_TRAP, 1: unix.SECCOMP_RET_TRAP, 41: unix.SECCOMP_RET_ALLOW,
		} {
			call := syscallData{arch: a.audit, nr: nr, args: [maxArgs]uint64{domain}}
			if got := program.run(t, call); got != want {
				t.Errorf("socket(%d) on %s answers %#x, want %#x", domain, name, got, want)
			}
			if evaluated := evaluate(profile, a, call); evaluated != want {
				t.Errorf("the reference says %#x for socket(%d) on %s, want %#x", evaluated, domain, name, want)
			}
		}
	}
}

func TestCompileWithoutFilter(t *testing.T) {
	for _, profile := range []*specs.LinuxSeccomp{nil, {}, {Architectures: []specs.Arch{specs.ArchX86}}} {
		filter, err := Compile(profile)
		if filter != nil || err != nil {
			t.Errorf("Compile(%+v) = %v, %v, want neither filter nor error", profile, filter, err)
		}
	}
	if err := (*Filter)(nil).Install(); err != nil {
		t.Errorf("install nothing: %v", err)
	}
}

func TestCompileNamesTheBadField(t *testing.T) {
	with := func(change func(*specs.LinuxSeccomp)) *specs.LinuxSeccomp {
		profile := &specs.LinuxSeccomp{
			DefaultAction: specs.ActErrno,
			Syscalls: []specs.LinuxSyscall{
				{Names: []string{"read"}, Action: specs.ActAllow},
				{Names: []string{"ioctl"}, Action: specs.ActAllow, Args: []specs.LinuxSeccompArg{{Index: 1, Op: specs.OpEqualTo}}},
			},
		}
		change(profile)
		return profile
	}
	many := make([]specs.LinuxSyscall, 1500)
	for i := range many {
		many[i] = specs.LinuxSyscall{Names: []string{"ioctl"}, Action: specs.ActAllow,
			Args: []specs.LinuxSeccompArg{{Index: 1, Op: specs.OpEqualTo, Value: uint64(i)}}}
	}
	for want, profile := range map[string]*specs.LinuxSeccomp{
		"linux.seccomp.defaultAction: unknown action":          with(func(p *specs.LinuxSeccomp) { p.DefaultAction = "" }),
		"linux.seccomp.defaultAction: user notification":       with(func(p *specs.LinuxSeccomp) { p.DefaultAction = specs.ActNotify }),
		"linux.seccomp.defaultErrnoRet: 4096 is above 4095":    with(func(p *specs.LinuxSeccomp) { p.DefaultErrnoRet = ptr(uint(4096)) }),
		"linux.seccomp.architectures[0]: unknown architecture": with(func(p *specs.LinuxSeccomp) { p.Architectures = []specs.Arch{"amd64"} }),
		"linux.seccomp.flags[1]: unknown flag":                 with(func(p *specs.LinuxSeccomp) { p.Flags = []specs.LinuxSeccompFlag{specs.LinuxSeccompFlagLog, "FAST"} }),
		"linux.seccomp.flags[0]: SECCOMP_FILTER_FLAG_WAIT_KILLABLE": with(func(p *specs.LinuxSeccomp) {
			p.Flags = []specs.LinuxSeccompFlag{specs.LinuxSeccompFlagWaitKillableRecv}
		}),
		"linux.seccomp.listenerPath: ":                              with(func(p *specs.LinuxSeccomp) { p.ListenerPath = "/run/agent.sock" }),
		"linux.seccomp.listenerMetadata: ":                          with(func(p *specs.LinuxSeccomp) { p.ListenerMetadata = "x" }),
		"linux.seccomp.syscalls[1].names: must name":                with(func(p *specs.LinuxSeccomp) { p.Syscalls[1].Names = nil }),
		"linux.seccomp.syscalls[0].names: a name is empty":          with(func(p *specs.LinuxSeccomp) { p.Syscalls[0].Names = []string{"read", ""} }),
		"linux.seccomp.syscalls[0].action: unknown action":          with(func(p *specs.LinuxSeccomp) { p.Syscalls[0].Action = "SCMP_ACT_MAYBE" }),
		"linux.seccomp.syscalls[0].action: user notification":       with(func(p *specs.LinuxSeccomp) { p.Syscalls[0].Action = specs.ActNotify }),
		"linux.seccomp.syscalls[0].errnoRet: action SCMP_ACT_ALLOW": with(func(p *specs.LinuxSeccomp) { p.Syscalls[0].ErrnoRet = ptr(uint(1)) }),
		"linux.seccomp.syscalls[1].args[0].index: 6 is above":       with(func(p *specs.LinuxSeccomp) { p.Syscalls[1].Args[0].Index = 6 }),
		"linux.seccomp.syscalls[1].args[0].op: unknown operator":    with(func(p *specs.LinuxSeccomp) { p.Syscalls[1].Args[0].Op = "=" }),
		"linux.seccomp.syscalls: the filter needs":                  with(func(p *specs.LinuxSeccomp) { p.Syscalls = many }),
	} {
		filter, err := Compile(profile)
		if err == nil || filter != nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("got %v, %v, want an error that starts with %q", filter, err, want)
		}
	}
}

func TestFlags(t *testing.T) {
	for _, c := range []struct {
		flags []specs.LinuxSeccompFlag
		want  uint32
	}{
		{nil, unix.SECCOMP_FILTER_FLAG_SPEC_ALLOW},
		{[]specs.LinuxSeccompFlag{}, 0},
		{[]specs.LinuxSeccompFlag{"SECCOMP_FILTER_FLAG_TSYNC"}, 0},
		{[]specs.LinuxSeccompFlag{specs.LinuxSeccompFlagLog, specs.LinuxSeccompFlagSpecAllow},
			unix.SECCOMP_FILTER_FLAG_LOG | unix.SECCOMP_FILTER_FLAG_SPEC_ALLOW},
	} {
		filter, err := Compile(&specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Flags: c.flags})
		if err != nil {
			t.Fatal(err)
		}
		if filter.flags != c.want {
			t.Errorf("flags %q give %#x, want %#x", c.flags, filter.flags, c.want)
		}
	}
}

// TestTablesAreCurrent fails when the tables were made from another version of
// golang.org/x/sys than that in go.mod: run go generate.
func TestTablesAreCurrent(t *testing.T) {
	dir := t.TempDir()
	if output, err := exec.Command("go", "run", "mksyscalls.go", "-out", dir).CombinedOutput(); err != nil {
		t.Fatalf("go run mksyscalls.go: %v\n%s", err, output)
	}
	for _, name := range []string{"table_x86_64.go", "table_aarch64.go"} {
		want, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if string(got) != string(want) {
			t.Errorf("%s is not what golang.org/x/sys has: run go generate ./sandbox/seccomp", name)
		}
	}
}

// FuzzCompile makes profiles from bytes. None may cause a panic. Each program must be
// valid and return the same as evaluate.
func FuzzCompile(f *testing.F) {
	f.Add([]byte("\x01\x02\x03seed"))
	f.Add([]byte{0, 10, 3, 2, 0, 1, 0, 0, 0, 0, 0, 0, 0, 8, 1, 6, 255, 255, 255, 255, 0, 0, 0, 1, 10, 2, 1, 0, 6, 1, 2, 3, 4, 5, 6, 7, 8})
	f.Add([]byte{1, 20, 20, 1, 0, 20, 20, 1, 1, 0, 3, 0, 0, 0, 1, 0, 0, 0, 0})
	a := architectures["x86_64"]
	f.Fuzz(func(t *testing.T, data []byte) {
		profile := profileFrom(data, a)
		p, err := parse(profile, a)
		if err != nil {
			t.Fatalf("%+v: %v", profile, err)
		}
		code, err := assemble(p)
		if err != nil {
			return // the program is too long: Compile refuses such a profile
		}
		program := simulate(t, code)
		for _, call := range calls(profile, a) {
			if got, want := program.run(t, call), evaluate(profile, a, call); got != want {
				t.Fatalf("%+v: %+v answers %#x, want %#x", profile, call, got, want)
			}
		}
	})
}

// profileFrom reads a valid profile of at most eight rules from data.
func profileFrom(data []byte, a *arch) *specs.LinuxSeccomp {
	next := func() uint64 {
		if len(data) == 0 {
			return 0
		}
		b := data[0]
		data = data[1:]
		return uint64(b)
	}
	word := func() uint64 {
		var v uint64
		for range 8 {
			v = v<<8 | next()
		}
		return v
	}
	actions := []specs.LinuxSeccompAction{specs.ActErrno, specs.ActAllow, specs.ActKill, specs.ActKillProcess,
		specs.ActKillThread, specs.ActTrap, specs.ActTrace, specs.ActLog}
	operators := []specs.LinuxSeccompOperator{specs.OpEqualTo, specs.OpNotEqual, specs.OpLessThan, specs.OpLessEqual,
		specs.OpGreaterThan, specs.OpGreaterEqual, specs.OpMaskedEqual}

	profile := &specs.LinuxSeccomp{DefaultAction: actions[next()%8]}
	for len(data) > 0 && len(profile.Syscalls) < 8 {
		entry := specs.LinuxSyscall{Action: actions[next()%8]}
		first := next()
		for i := range next()%4 + 1 {
			entry.Names = append(entry.Names, a.calls[(first+i)%uint64(len(a.calls))].name)
		}
		for range next() % 4 {
			entry.Args = append(entry.Args, specs.LinuxSeccompArg{
				Index: uint(next() % maxArgs), Op: operators[next()%7], Value: word(), ValueTwo: word()})
		}
		profile.Syscalls = append(profile.Syscalls, entry)
	}
	return profile
}

func BenchmarkCompileDefaultProfile(b *testing.B) {
	profile := defaultProfile()
	b.ReportAllocs()
	for b.Loop() {
		filter, err := Compile(profile)
		if err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(float64(len(filter.program)), "instructions")
	}
}

func itoa(v uint64) string { return strconv.FormatUint(v, 10) }

package confine_test

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/wasmshim/containerd-shim-wasm/internal/repo"
	"github.com/wasmshim/containerd-shim-wasm/internal/testworker"
	"github.com/wasmshim/containerd-shim-wasm/sandbox"
	"github.com/wasmshim/containerd-shim-wasm/worker/control"
)

// roles are the columns of the table, as the hostile program names them. The first has the system calls of a
// native container.
var roles = []string{"unconfined", "guest", "emissary", "signaller", "preparer"}

// attempts are the rows: the results for native code in a worker's place, in the order of roles.
var attempts = []struct {
	name string
	want string // by role, without the first
}{
	{"execute a program", "killed allowed killed killed"},
	{"fork", "EPERM allowed EPERM EPERM"},
	{"make a sibling", "EPERM EPERM EPERM EPERM"},
	{"new user namespace", "EPERM EPERM EPERM EPERM"},
	{"unshare", "killed killed killed killed"},
	{"join a namespace", "killed killed killed killed"},
	{"mount", "killed killed killed killed"},
	{"change root", "killed killed killed killed"},
	{"become another user", "killed killed killed killed"},
	{"trace", "killed killed killed killed"},
	{"read another's memory", "killed killed killed killed"},
	{"open a process", "killed killed killed killed"},
	{"take another's descriptor", "killed killed killed killed"},
	{"signal another process", "EPERM ESRCH ESRCH EPERM"},
	{"socket: internet", "EPERM EPERM EPERM EPERM"},
	{"socket: netlink", "EPERM EPERM EPERM EPERM"},
	{"socket: packets", "EPERM EPERM EPERM EPERM"},
	{"socket: unix", "EPERM EPERM EPERM EPERM"},
	{"io_uring", "killed killed killed killed"},
	{"keys", "killed killed killed killed"},
	{"bpf", "killed killed killed killed"},
	{"userfaultfd", "killed killed killed killed"},
	{"performance counters", "killed killed killed killed"},
	{"shared memory", "EPERM EPERM EPERM EPERM"},
	{"map machine code", "EPERM allowed EPERM EPERM"},
	{"map writable machine code", "EPERM allowed EPERM EPERM"},
	{"make memory machine code", "EPERM allowed EPERM allowed"},
	{"file without a name", "EPERM EPERM EPERM EPERM"},
	{"another personality", "EPERM EPERM EPERM EPERM"},
	{"open a file", "allowed allowed EPERM EPERM"},
	{"write a file", "allowed allowed EPERM EPERM"},
	{"open a file by its handle", "killed killed killed killed"},
	{"make a device", "killed killed killed killed"},
	{"change a file's mode", "EPERM allowed EPERM EPERM"},
	{"change a file's owner", "EPERM EPERM EPERM EPERM"},
	{"watch files", "EPERM EPERM EPERM EPERM"},
	{"hold a file: flock", "EPERM EPERM EPERM EPERM"},
	{"hold a file: fcntl", "EPERM EPERM EPERM EPERM"},
	{"hold a file: lease", "EPERM EPERM EPERM EPERM"},
	{"type on the terminal", "EPERM EPERM EPERM EPERM"},
	{"raise its limits", "EPERM allowed EPERM EPERM"},
	{"be dumped and traced", "EPERM allowed EPERM EPERM"},
	{"choose its processors", "EPERM EPERM EPERM EPERM"},
	{"a thread", "allowed allowed allowed allowed"},
}

// Code that has taken a worker's place can do only what the role needs, and a native container of the same
// specification gets another result. docs/security.md shows the table.
func TestHostileCode(t *testing.T) {
	program := buildHostile(t)
	documented := documentation(t)
	table := "| attempt | " + strings.Join(roles, " | ") + " |\n" + strings.Repeat("| --- ", 1+len(roles)) + "|\n"
	if !strings.Contains(documented, table) {
		t.Error("docs/security.md has no table of these roles")
	}
	for _, attempt := range attempts {
		row := []string{launch(t, program, roles[0], attempt.name)}
		for _, role := range roles[1:] {
			row = append(row, launch(t, program, role, attempt.name))
		}
		if got := strings.Join(row[1:], " "); got != attempt.want {
			t.Errorf("%s: got %s, want %s", attempt.name, got, attempt.want)
		}
		for i, got := range row[1:] {
			if refused := got == "killed" || got == "EPERM"; refused && got == row[0] {
				t.Errorf("%s: %s, and without confinement too: the attempt shows nothing of %s", attempt.name, got, roles[i+1])
			}
		}
		table += "| " + attempt.name + " | " + strings.Join(row, " | ") + " |\n"
		if !isDocumented(documented, attempt.name, row[1:]) {
			t.Errorf("docs/security.md shows other answers to %q", attempt.name)
		}
	}
	t.Log("\n" + table)
}

// isDocumented reports whether a row of a table has the result of each role. The unconfined role may have any
// result, because kernels differ.
func isDocumented(text, attempt string, got []string) bool {
	row := regexp.QuoteMeta("| "+attempt+" | ") + "[A-Za-z]+" + regexp.QuoteMeta(" | "+strings.Join(got, " | ")+" |")
	return regexp.MustCompile("(?m)^" + row + "$").MatchString(text)
}

// documentation returns docs/security.md.
func documentation(t *testing.T) string {
	t.Helper()
	root, err := repo.Root()
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(root, "docs", "security.md"))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func buildHostile(t *testing.T) *os.File {
	t.Helper()
	path := filepath.Join(t.TempDir(), "hostile")
	build := exec.Command("go", "build", "-o", path, "./testdata/hostile")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if text, err := build.CombinedOutput(); err != nil {
		t.Fatalf("building the hostile program: %v\n%s", err, text)
	}
	program, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { program.Close() })
	return program
}

// launch runs the hostile program for one attempt in the place of a worker, or of a native program. It
// returns the program's output, or "killed" if the kernel killed it.
func launch(t *testing.T, program *os.File, role, attempt string) string {
	t.Helper()
	output, input, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer output.Close()
	defer input.Close()
	root := t.TempDir()
	for _, name := range []string{"file", "stdin"} {
		if err := os.WriteFile(filepath.Join(root, name), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	stdin, err := os.Open(filepath.Join(root, "stdin"))
	if err != nil {
		t.Fatal(err)
	}
	defer stdin.Close()
	spec := ordinary(root, role, attempt)
	s, err := sandbox.New(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := s.MountRootfs(nil, spec.Root, ""); err != nil {
		t.Fatal(err)
	}
	child, err := s.Launch(t.Context(), sandbox.Launch{
		Spec: spec, Process: spec.Process, Worker: program, Native: role == "unconfined",
		Argv: spec.Process.Args, Files: []*os.File{stdin, input, input},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer child.Close()
	input.Close()
	told, err := io.ReadAll(output)
	if err != nil {
		t.Fatal(err)
	}
	var status syscall.WaitStatus
	if _, err := syscall.Wait4(child.PID, &status, 0, nil); err != nil {
		t.Fatal(err)
	}
	switch {
	case status.Signaled() && status.Signal() == syscall.SIGSYS:
		return "killed"
	case status.ExitStatus() != 0:
		t.Fatalf("%s, %s: ended with %#x: %s", role, attempt, status, told)
	}
	return string(told)
}

// ordinary returns the specification of a container that runs as root, with containerd's default capabilities
// and without a seccomp profile, as is the default in Kubernetes.
func ordinary(root, role, attempt string) *specs.Spec {
	caps := []string{
		"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FSETID", "CAP_FOWNER", "CAP_MKNOD", "CAP_NET_RAW", "CAP_SETGID", "CAP_SETUID",
		"CAP_SETFCAP", "CAP_SETPCAP", "CAP_NET_BIND_SERVICE", "CAP_SYS_CHROOT", "CAP_KILL", "CAP_AUDIT_WRITE",
	}
	return &specs.Spec{
		Root: &specs.Root{Path: root},
		Process: &specs.Process{
			Args: []string{"hostile", role, attempt}, Cwd: "/",
			Capabilities: &specs.LinuxCapabilities{Bounding: caps, Permitted: caps, Effective: caps},
		},
		Mounts: []specs.Mount{{Destination: "/t", Type: "tmpfs", Source: "tmpfs", Options: []string{"mode=1777"}}},
		Linux: &specs.Linux{Namespaces: []specs.LinuxNamespace{
			{Type: specs.MountNamespace}, {Type: specs.PIDNamespace}, {Type: specs.IPCNamespace}, {Type: specs.UTSNamespace}, {Type: specs.NetworkNamespace},
		}},
	}
}

// A signaller, which is too short-lived to be inspected from a container, is confined when it reports.
func TestSignallerIsConfined(t *testing.T) {
	worker, err := testworker.Path()
	if err != nil {
		t.Fatal(err)
	}
	ours, theirs, err := control.Pair()
	if err != nil {
		t.Fatal(err)
	}
	defer ours.Close()
	signaller := exec.Command(worker)
	signaller.Env, signaller.ExtraFiles = []string{control.RoleEnv + "=" + control.RoleKill}, []*os.File{theirs.File}
	err = signaller.Start()
	theirs.Close()
	if err != nil {
		t.Fatal(err)
	}
	defer signaller.Wait()
	defer signaller.Process.Kill()
	if err := ours.Run(control.Run{Args: []string{"/var/run/argo/argoexec", "kill", "15", "1"}}); err != nil {
		t.Fatal(err)
	}
	if report, err := ours.Report(); err != nil || report.Error != "" {
		t.Fatal(err, report.Error)
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", signaller.Process.Pid))
	if err != nil || !strings.Contains(string(status), "Seccomp:\t2\n") || !strings.Contains(string(status), "NoNewPrivs:\t1\n") {
		t.Errorf("its status is %v\n%s", err, status)
	}
}

// The filters are those that mkfilters.go generates from the lists, for both architectures.
func TestFiltersAreGenerated(t *testing.T) {
	dir := t.TempDir()
	if output, err := exec.Command("go", "run", "mkfilters.go", "-out", dir).CombinedOutput(); err != nil {
		t.Fatalf("go run mkfilters.go: %v\n%s", err, output)
	}
	for _, goarch := range []string{"amd64", "arm64"} {
		name := fmt.Sprintf("filters_%s.go", goarch)
		want, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%s is not what the lists say: go generate ./worker/confine", name)
		}
	}
}

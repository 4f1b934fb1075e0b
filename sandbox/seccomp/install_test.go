package seccomp

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"unsafe"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// roleVariable makes the test binary play a role in a process of its own: a filter
// cannot be removed.
const roleVariable = "SECCOMP_TEST_ROLE"

func TestMain(m *testing.M) {
	roles := map[string]func() error{
		"": nil, "install": install, "child": confined, "run": installAndRun, "unprivileged": unprivileged,
	}
	role := roles[os.Getenv(roleVariable)]
	if role == nil {
		os.Exit(m.Run())
	}
	if err := role(); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Println("as expected")
	os.Exit(0)
}

func play(role string, args ...string) *exec.Cmd {
	command := exec.Command("/proc/self/exe", args...)
	command.Env = append(os.Environ(), roleVariable+"="+role)
	return command
}

func expect(t *testing.T, role string) {
	t.Helper()
	output, err := play(role).CombinedOutput()
	if err != nil || string(output) != "as expected\n" {
		t.Errorf("%v: %s", err, output)
	}
}

// profileForTests returns containerd's default profile with one more rule: it denies
// a call with an errno that nothing else returns.
func profileForTests() *specs.LinuxSeccomp {
	profile := defaultProfile()
	profile.Syscalls = append([]specs.LinuxSyscall{{
		Names: []string{"vhangup"}, Action: specs.ActErrno, ErrnoRet: ptr(uint(unix.EXDEV)),
	}}, profile.Syscalls...)
	return profile
}

// TestInstall checks that the filter applies to the thread that installed it and to
// the programs that this thread executes, but to no other thread.
func TestInstall(t *testing.T) { expect(t, "install") }

func TestInstallWithoutPrivileges(t *testing.T) { expect(t, "unprivileged") }

func install() error {
	other := make(chan int)
	done := make(chan struct{})
	defer close(done)
	go func() {
		runtime.LockOSThread()
		other <- unix.Gettid()
		<-done
	}()
	bystander := <-other

	runtime.LockOSThread()
	filter, err := Compile(profileForTests())
	if err != nil {
		return err
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	if err := filter.Install(); err != nil {
		return err
	}
	if mode, err := seccompMode(fmt.Sprintf("/proc/self/task/%d/status", bystander)); err != nil || mode != "0" {
		return fmt.Errorf("a thread that did not ask for it has seccomp mode %q, %v", mode, err)
	}
	if err := confined(); err != nil {
		return err
	}
	if output, err := play("child").CombinedOutput(); err != nil || string(output) != "as expected\n" {
		return fmt.Errorf("in a child: %w: %s", err, output)
	}
	return nil
}

// confined checks that the calling thread is under profileForTests.
func confined() error {
	if mode, err := seccompMode("/proc/thread-self/status"); err != nil || mode != "2" {
		return fmt.Errorf("seccomp mode is %q, %v, want 2", mode, err)
	}
	for _, c := range []struct {
		what string
		nr   uintptr
		args [3]uintptr
		want unix.Errno
	}{
		{"vhangup", unix.SYS_VHANGUP, [3]uintptr{}, unix.EXDEV},
		{"mount", unix.SYS_MOUNT, [3]uintptr{}, unix.EPERM},
		{"clone3", unix.SYS_CLONE3, [3]uintptr{}, unix.ENOSYS},
		{"a call newer than the profile", 5000, [3]uintptr{}, unix.ENOSYS},
		{"clone of a user namespace", unix.SYS_CLONE, [3]uintptr{unix.CLONE_NEWUSER}, unix.EPERM},
		{"socket of AF_VSOCK", unix.SYS_SOCKET, [3]uintptr{unix.AF_VSOCK, unix.SOCK_STREAM, 0}, unix.EPERM},
		{"personality of nobody", unix.SYS_PERSONALITY, [3]uintptr{1 << 20}, unix.EPERM},
		{"personality, asked", unix.SYS_PERSONALITY, [3]uintptr{0xffffffff}, 0},
		{"getppid", unix.SYS_GETPPID, [3]uintptr{}, 0},
	} {
		if _, _, errno := unix.RawSyscall(c.nr, c.args[0], c.args[1], c.args[2]); errno != c.want {
			return fmt.Errorf("%s answers %v, want %v", c.what, errno, c.want)
		}
	}
	return nil
}

func seccompMode(status string) (string, error) {
	text, err := os.ReadFile(status)
	if err != nil {
		return "", err
	}
	_, rest, _ := strings.Cut(string(text), "\nSeccomp:\t")
	mode, _, _ := strings.Cut(rest, "\n")
	return mode, nil
}

// unprivileged checks Install's error on a thread that lacks the privilege.
func unprivileged() error {
	runtime.LockOSThread()
	filter, err := Compile(profileForTests())
	if err != nil {
		return err
	}
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var none [2]unix.CapUserData
	if _, _, errno := unix.RawSyscall(unix.SYS_CAPSET,
		uintptr(unsafe.Pointer(&header)), uintptr(unsafe.Pointer(&none[0])), 0); errno != 0 {
		return errno
	}
	err = filter.Install()
	if !errors.Is(err, unix.EACCES) || !strings.Contains(err.Error(), "no_new_privs") {
		return fmt.Errorf("got %v, want EACCES with its reason", err)
	}
	return nil
}

// installAndRun executes the program in its first argument under the filter.
func installAndRun() error {
	runtime.LockOSThread()
	filter, err := Compile(profileForTests())
	if err != nil {
		return err
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	if err := filter.Install(); err != nil {
		return err
	}
	return unix.Exec(os.Args[1], os.Args[1:], nil)
}

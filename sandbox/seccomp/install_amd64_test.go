package seccomp

import (
	"errors"
	"os/exec"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// TestForeignArchitectureIsKilled makes a system call of the i386 ABI from a 64-bit
// program. containerd's default profile lists that architecture.
func TestForeignArchitectureIsKilled(t *testing.T) {
	program := buildC(t, "testdata/int80.c")
	if output, err := exec.Command(program).CombinedOutput(); err != nil {
		t.Fatalf("without a filter: %v: %s", err, output)
	}
	err := play("run", program).Run()
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		t.Fatalf("under the filter the program ends with %v", err)
	}
	if status := exit.Sys().(syscall.WaitStatus); !status.Signaled() || status.Signal() != unix.SIGSYS {
		t.Errorf("under the filter the program ends with %v, want SIGSYS", err)
	}
}

// TestX32IsHidden checks that x32 numbers cannot bypass a deny list.
func TestX32IsHidden(t *testing.T) {
	for name, profile := range profiles() {
		program := simulate(t, compileFor(t, profile, native))
		for _, nr := range []uint32{x32Bit, x32Bit | unix.SYS_PTRACE, x32Bit | 521, ^uint32(0)} {
			if got := program.run(t, syscallData{arch: native.audit, nr: nr}); got != retENOSYS {
				t.Errorf("%q: call %#x answers %#x, want ENOSYS", name, nr, got)
			}
		}
	}
}

package worker

import (
	"errors"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// triesThreads makes a second, non-root process of this test call tryThreads under a limit.
const triesThreads = "TEST_TRIES_THREADS"

func TestMain(m *testing.M) {
	if os.Getenv(triesThreads) == "" {
		os.Exit(m.Run())
	}
	// The process may have no more threads than it has already. The limit applies to this user on the whole
	// machine.
	limit := unix.Rlimit{Cur: 1, Max: 1}
	err := errors.Join(unix.Setrlimit(unix.RLIMIT_NPROC, &limit), tryThreads(engineThreads))
	if err != nil {
		os.Stderr.WriteString(err.Error())
		os.Exit(1)
	}
}

// tryThreads fails with an error that names the limits if threads cannot be started.
func TestTryThreads(t *testing.T) {
	if err := tryThreads(engineThreads); err != nil {
		t.Error(err)
	}
	limited := exec.Command("/proc/self/exe")
	limited.Env = []string{triesThreads + "=1"}
	limited.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 61234, Gid: 61234}}
	output, err := limited.CombinedOutput()
	if err == nil {
		t.Fatalf("it has its threads: %s", output)
	}
	for _, want := range []string{"linux.resources.pids.limit", "RLIMIT_NPROC", "16 is the least", "resource temporarily unavailable"} {
		if !strings.Contains(string(output), want) {
			t.Errorf("got %q, want something with %q", output, want)
		}
	}
}

func BenchmarkTryThreads(b *testing.B) {
	for b.Loop() {
		if err := tryThreads(engineThreads); err != nil {
			b.Fatal(err)
		}
	}
}

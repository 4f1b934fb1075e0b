package testcluster

import (
	"os"
	"os/exec"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/wasmshim/containerd-shim-wasm/internal/poll"
)

// firstThreadEnds makes the test's program end its first thread only.
const firstThreadEnds = "TESTCLUSTER_FIRST_THREAD_ENDS"

func init() {
	if os.Getenv(firstThreadEnds) == "" {
		return
	}
	go func() { // on another thread: package enter's init has locked the first one
		runtime.LockOSThread()
		select {}
	}()
	_, _, _ = unix.RawSyscall(unix.SYS_EXIT, 0, 0, 0)
}

// A process whose first thread is a zombie is alive until its last thread has ended.
func TestAliveWithoutFirstThread(t *testing.T) {
	command := exec.CommandContext(t.Context(), os.Args[0])
	command.Env = append(os.Environ(), firstThreadEnds+"=1")
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	p, err := identify(command.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	if err := poll.Until(t.Context(), func() (bool, error) {
		s, err := readStat(p.PID)
		return s.state == "Z", err
	}); err != nil {
		t.Fatal(err)
	}
	if !p.alive() {
		t.Error("it is not alive while other threads run")
	}
	if err := command.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := p.gone(t.Context()); err != nil {
		t.Fatal(err)
	}
	_ = command.Wait() // it was killed
}

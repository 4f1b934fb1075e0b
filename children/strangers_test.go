package children

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

const siblingEnv = "TEST_MAKES_A_SIBLING"

// The test binary also runs as the init of a pid namespace, and as a process in that namespace that makes a sibling.
func init() {
	switch os.Getenv(siblingEnv) {
	case "init":
		fmt.Println("ready")
		_, _ = io.Copy(io.Discard, os.Stdin) // the test closes it at its end
		os.Exit(0)
	case "maker":
		makeSibling()
	}
}

// makeSibling makes a child of its own parent. The child exits at once, then makeSibling exits too.
func makeSibling() {
	pid, _, errno := unix.RawSyscall6(unix.SYS_CLONE, unix.CLONE_PARENT|uintptr(unix.SIGCHLD), 0, 0, 0, 0, 0)
	if pid == 0 && errno == 0 {
		for {
			unix.RawSyscall(unix.SYS_EXIT_GROUP, 7, 0, 0)
		}
	}
	os.Exit(int(errno))
}

// A stranger is reaped, so its pid namespace ends. Our own children, launched or run with package exec, keep their
// status until we wait for them.
func TestStrangersAreReaped(t *testing.T) {
	go Watch()
	first := roleOf(t, "init")
	first.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWPID}
	end, err := first.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	output, err := first.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := start(first); err != nil {
		t.Fatal(err)
	}
	if !bufio.NewScanner(output).Scan() {
		t.Fatal("the init of the pid namespace says nothing")
	}
	run := exec.Command("sh", "-c", "exit 3") // wait(2) shows it before the stranger until it is reaped
	if err := run.Start(); err != nil {
		t.Fatal(err)
	}
	maker := roleOf(t, "maker")
	if err := inPIDNamespace(first.Process.Pid, func() error { return start(maker) }); err != nil {
		t.Fatal(err)
	}
	if err := maker.Wait(); err != nil {
		t.Errorf("a launched child: %v", err)
	}
	own.forget(maker.Process.Pid)
	end.Close()
	if err := first.Wait(); err != nil { // waits for ever if the namespace does not end
		t.Errorf("the init of the pid namespace: %v", err)
	}
	own.forget(first.Process.Pid)
	_ = run.Wait()
	if code := run.ProcessState.ExitCode(); code != 3 {
		t.Errorf("a program of our own ended with %d, want 3", code)
	}
	if len(own.known) != 0 || own.launching != 0 {
		t.Errorf("left: %+v", &own)
	}
}

func roleOf(t *testing.T, role string) *exec.Cmd {
	t.Helper()
	path, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(path)
	cmd.Env = append(os.Environ(), siblingEnv+"="+role)
	cmd.Stderr = os.Stderr
	return cmd
}

// start launches a command as a known child.
func start(cmd *exec.Cmd) error {
	return own.launch(func() (int, error) {
		if err := cmd.Start(); err != nil {
			return 0, err
		}
		return cmd.Process.Pid, nil
	})
}

// inPIDNamespace calls do on a thread whose children are born in the pid namespace of a process.
func inPIDNamespace(pid int, do func() error) error {
	namespace, err := os.Open(fmt.Sprintf("/proc/%d/ns/pid", pid))
	if err != nil {
		return err
	}
	defer namespace.Close()
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // the thread ends with the goroutine
		err := unix.Setns(int(namespace.Fd()), unix.CLONE_NEWPID)
		if err == nil {
			err = do()
		}
		done <- err
	}()
	return <-done
}

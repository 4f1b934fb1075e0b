package worker

import (
	"errors"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/wasmshim/containerd-shim-wasm/worker/control"
)

// held is a waiting stand-in.
type held struct {
	t       *testing.T
	process *os.Process
	daemon  control.Daemon
	output  *os.File
}

// standIn starts this binary, which contains the worker's stand-in, in place of a program. It does not use
// package os/exec, which would reorder the environment.
func standIn(t *testing.T, program string, env []string, args ...string) held {
	t.Helper()
	ours, theirs, err := control.Pair()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ours.Close() })
	defer theirs.Close()
	output, err := os.Create(filepath.Join(t.TempDir(), "output"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { output.Close() })
	process, err := os.StartProcess("/proc/self/exe", args, &os.ProcAttr{
		Env: control.StandInEnv(program, env), Files: []*os.File{nil, output, output, theirs.File},
	})
	if err != nil {
		t.Fatal(err)
	}
	return held{t: t, process: process, daemon: ours, output: output}
}

// start sends the start byte and returns the result.
func (h held) start() error {
	h.t.Helper()
	if err := h.daemon.Start(); err != nil {
		h.t.Fatal(err)
	}
	return h.daemon.AwaitExec()
}

// end waits for the end of the process.
func (h held) end() (code int, output string) {
	h.t.Helper()
	state, err := h.process.Wait()
	if err != nil {
		h.t.Fatal(err)
	}
	text, err := os.ReadFile(h.output.Name())
	if err != nil {
		h.t.Fatal(err)
	}
	return state.ExitCode(), string(text)
}

// A stand-in becomes the program as if that had been started directly: with its arguments, environment and
// directory, and without our descriptors and signal settings.
func TestStandInBecomesTheProgram(t *testing.T) {
	signal.Ignore(syscall.SIGPIPE)
	defer signal.Reset(syscall.SIGPIPE)
	// A shell blocks signals while it starts a program, so the last command replaces the shell.
	const script = `echo "$0 $1"; pwd; env; test -e /proc/$$/fd/3 && echo held; exec grep -E "SigBlk|SigIgn" /proc/self/status`
	h := standIn(t, "/bin/sh", []string{"A=1", "WASM_WORKER_ROLE=stand-in"}, "sh", "-c", script, "name", "argument")
	if err := h.start(); err != nil {
		t.Error(err)
	}
	const want = "name argument\n/\nA=1\nWASM_WORKER_ROLE=stand-in\nPWD=/\nSigBlk:\t0000000000000000\nSigIgn:\t0000000000000000\n"
	if code, output := h.end(); code != 0 || output != want {
		t.Errorf("it ended with %d and printed\n%s\nwant\n%s", code, output, want)
	}
}

func TestStandInTellsWhyNot(t *testing.T) {
	text := filepath.Join(t.TempDir(), "text")
	if err := os.WriteFile(text, []byte("no program"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		program string
		want    error
	}{
		{"/nonexistent", syscall.ENOENT},
		{"/usr", syscall.EACCES},
		{text, syscall.ENOEXEC},
	} {
		h := standIn(t, c.program, nil, "program")
		if err := h.start(); !errors.Is(err, c.want) {
			t.Errorf("%s: got %v, want %v", c.program, err, c.want)
		}
		if code, _ := h.end(); code != 127 {
			t.Errorf("%s: it ended with %d", c.program, code)
		}
	}
}

// Without the start byte a stand-in never becomes the program: neither if the daemon dies, nor if it receives
// another byte.
func TestStandInWaitsForTheWord(t *testing.T) {
	for name, say := range map[string]func(control.Daemon) error{
		"daemon dies": func(daemon control.Daemon) error { return daemon.Close() },
		"other word":  func(daemon control.Daemon) error { _, err := io.WriteString(daemon, "x"); return err },
	} {
		h := standIn(t, "/bin/echo", nil, "echo", "started")
		if err := say(h.daemon); err != nil {
			t.Fatal(err)
		}
		if code, output := h.end(); code != 128 || output != "" {
			t.Errorf("%s: it ended with %d and printed %q", name, code, output)
		}
	}
}

// A guest's arguments and environment cannot turn its worker into a stand-in: only the first variable
// decides, and that is the worker's own.
func TestOnlyTheFirstVariableMakesAStandIn(t *testing.T) {
	process, err := os.StartProcess("/proc/self/exe", []string{"test", "-test.run=^$"}, &os.ProcAttr{
		Env: []string{"A=1", control.RoleEnv + "=" + control.RoleStandIn, "/bin/false"}, Files: []*os.File{nil, nil, nil},
	})
	if err != nil {
		t.Fatal(err)
	}
	if state, err := process.Wait(); err != nil || state.ExitCode() != 0 {
		t.Errorf("%v, %v", state, err)
	}
}

package test

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/pkg/cio"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/containerd/v2/pkg/oci"
	"golang.org/x/sys/unix"

	"github.com/wasmshim/containerd-shim-wasm/internal/testguest"
	"github.com/wasmshim/containerd-shim-wasm/internal/testnode"
)

func TestStdinArrivesUnchanged(t *testing.T) {
	const size = 10 << 20
	digest := func(r io.Reader) string {
		sum := sha256.New()
		if _, err := io.Copy(sum, r); err != nil {
			t.Fatal(err)
		}
		return fmt.Sprintf("%x", sum.Sum(nil))
	}
	random := func() io.Reader { return io.LimitReader(rand.NewChaCha8([32]byte{}), size) }
	want := digest(random())
	nodes.EachVersion(t, func(t *testing.T, node *testnode.Node) {
		importProbe(t, node)
		node.NoLeaks(t)
		got := node.CtrWith(t, testnode.CtrOpts{Stdin: random()}, runArgs(nil, "cat", "cat")...)
		if got.Code != 0 || got.Stderr != "" {
			t.Errorf("ended with %d and %q", got.Code, got.Stderr)
		}
		if len(got.Stdout) != size || digest(strings.NewReader(got.Stdout)) != want {
			t.Errorf("%d bytes came back changed, %d were sent", len(got.Stdout), size)
		}
	})
}

func TestStderrStaysInOrder(t *testing.T) {
	const count = 100_000
	nodes.EachVersion(t, func(t *testing.T, node *testnode.Node) {
		importProbe(t, node)
		node.NoLeaks(t)
		got := node.Ctr(t, runArgs(nil, "lines", "lines", strconv.Itoa(count))...)
		if got.Code != 0 || got.Stdout != "" {
			t.Errorf("ended with %d and %q", got.Code, got.Stdout)
		}
		number := 0
		for line := range strings.Lines(got.Stderr) {
			number++
			if want := fmt.Sprintf("line %d\n", number); line != want {
				t.Fatalf("line %d is %q", number, line)
			}
		}
		if number != count {
			t.Errorf("got %d lines, want %d", number, count)
		}
	})
}

// console is a pseudo terminal: person is the user's side, program the other.
type console struct {
	person, program *os.File
}

func newConsole(t *testing.T) console {
	t.Helper()
	person, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { person.Close() })
	number, err := unix.IoctlGetInt(int(person.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.IoctlSetPointerInt(int(person.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	program, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { program.Close() })
	return console{person, program}
}

func (c console) resize(t *testing.T, columns, rows uint16) {
	t.Helper()
	if err := unix.IoctlSetWinsize(int(c.person.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Col: columns, Row: rows}); err != nil {
		t.Fatal(err)
	}
}

// terminalSize returns the size of the terminal at one of a process's standard streams, as "COLUMNSxROWS".
func terminalSize(t *testing.T, pid uint32, stream int) string {
	t.Helper()
	terminal, err := os.OpenFile(fmt.Sprintf("/proc/%d/fd/%d", pid, stream), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer terminal.Close()
	size, err := unix.IoctlGetWinsize(int(terminal.Fd()), unix.TIOCGWINSZ)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%dx%d", size.Col, size.Row)
}

// ctr passes a user's terminal on to the guest: its size and changes of it, the input, and the interrupt of
// Ctrl-C.
func TestTerminalOfCtr(t *testing.T) {
	eachVersionWithTasks(t, func(t *testing.T, node *testnode.Node) {
		importProbe(t, node)
		c := node.Client(t)
		ctx := namespaces.WithNamespace(t.Context(), node.Namespace)
		at := newConsole(t)
		at.resize(t, 101, 31)
		seen := &output{}
		go func() { _, _ = io.Copy(seen, at.person) }() // ends with the terminal

		const id = "terminal"
		ctr := node.CtrCommand(t.Context(), runArgs([]string{"--tty"}, id, "sleep", "1000")...)
		ctr.Stdin, ctr.Stdout, ctr.Stderr = at.program, at.program, at.program
		ctr.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
		if err := ctr.Start(); err != nil {
			t.Fatal(err)
		}
		seen.await(t, "sleeping\r")
		pid := pidOf(ctx, t, c, id)
		waitFor(t, func() bool { return terminalSize(t, pid, 0) == "101x31" }, "the terminal to have its first size")
		// ctr passes the first size on before it listens for changes, so it can miss one change.
		waitFor(t, func() bool {
			if terminalSize(t, pid, 0) == "77x22" {
				return true
			}
			at.resize(t, 77, 21)
			at.resize(t, 77, 22)
			return false
		}, "the terminal to have its second size")

		if _, err := at.person.WriteString("\x03"); err != nil {
			t.Fatal(err)
		}
		if err := ctr.Wait(); ctr.ProcessState.ExitCode() != 130 {
			t.Errorf("after Ctrl-C: %v, printed %q", err, seen)
		}
	})
}

func pidOf(ctx context.Context, t *testing.T, c *client.Client, id string) uint32 {
	t.Helper()
	container, err := c.LoadContainer(ctx, id)
	if err != nil {
		t.Fatal(err)
	}
	task, err := container.Task(ctx, nil)
	if err != nil {
		t.Fatal(err)
	}
	return task.Pid()
}

// createAttached makes a task of the probe with the given streams.
func createAttached(t *testing.T, node *testnode.Node, streams cio.Creator, args []string, opts ...oci.SpecOpts) *task {
	t.Helper()
	ctx := namespaces.WithNamespace(context.Background(), node.Namespace)
	c := node.Client(t)
	image, err := c.GetImage(ctx, tasksWasmImage)
	if err != nil {
		t.Fatal(err)
	}
	id := fmt.Sprintf("attached-%d", lastTask.Add(1))
	opts = append([]oci.SpecOpts{oci.WithImageConfig(image), oci.WithProcessArgs(append([]string{"/app.wasm"}, args...)...)}, opts...)
	container, err := c.NewContainer(ctx, id, client.WithImage(image), client.WithNewSnapshot(id, image),
		client.WithNewSpec(opts...), client.WithRuntime(runtime, nil))
	if err != nil {
		t.Fatal(err)
	}
	made := &task{t: t, ctx: ctx, node: node, container: container, output: &output{}, way: asWasm}
	t.Cleanup(made.remove)
	if made.Task, err = container.NewTask(ctx, streams); err != nil {
		t.Fatal(err)
	}
	if made.exited, err = made.Wait(ctx); err != nil {
		t.Fatal(err)
	}
	return made
}

// Every stream of a worker with a terminal is that terminal. A resize takes effect, also before the start.
func TestTerminalResize(t *testing.T) {
	eachVersionWithTasks(t, func(t *testing.T, node *testnode.Node) {
		seen := &output{}
		streams := cio.NewCreator(cio.WithStreams(strings.NewReader(""), seen, nil), cio.WithTerminal)
		k := createAttached(t, node, streams, []string{"sleep", "1000"}, oci.WithTTY)
		for _, size := range []struct{ columns, rows uint32 }{{80, 25}, {132, 50}} {
			if err := k.Resize(k.ctx, size.columns, size.rows); err != nil {
				t.Fatal(err)
			}
			for stream := range 3 {
				if got, want := terminalSize(t, k.Pid(), stream), fmt.Sprintf("%dx%d", size.columns, size.rows); got != want {
					t.Errorf("stream %d is %s, want %s", stream, got, want)
				}
			}
			if size.columns == 80 {
				k.start()
				seen.await(t, "sleeping\r\n")
			}
		}
		kill(t, k, syscall.SIGKILL)
		k.expectCode(137)
	})
}

// A guest at a terminal reads the input line by line, and Ctrl-D ends the input.
func TestTerminalInput(t *testing.T) {
	eachVersionWithTasks(t, func(t *testing.T, node *testnode.Node) {
		typed, keys := io.Pipe()
		t.Cleanup(func() { keys.Close() })
		seen := &output{}
		streams := cio.NewCreator(cio.WithStreams(typed, seen, nil), cio.WithTerminal)
		k := createAttached(t, node, streams, []string{"cat"}, oci.WithTTY)
		k.start()
		if _, err := io.WriteString(keys, "typed\r"); err != nil {
			t.Fatal(err)
		}
		seen.await(t, "typed\r\ntyped\r\n") // the terminal's echo, then the guest's output
		if _, err := io.WriteString(keys, "\x04"); err != nil {
			t.Fatal(err)
		}
		k.expectCode(0)
	})
}

// exitAndLog runs a guest to its end and deletes it, so that its loggers have ended as well.
func exitAndLog(t *testing.T, k *task, path string, want uint32) string {
	t.Helper()
	k.start()
	k.expectCode(want)
	if _, err := k.Delete(k.ctx); err != nil {
		t.Error(err)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// A log file receives both streams, appended to its content.
func TestLogFile(t *testing.T) {
	eachVersionWithTasks(t, func(t *testing.T, node *testnode.Node) {
		path := filepath.Join(t.TempDir(), "new", "log")
		var want strings.Builder
		for _, run := range []struct {
			args []string
			code uint32
			want string
		}{
			{[]string{"args", "first"}, 0, "first\n"},
			{[]string{"lines", "2"}, 0, "line 1\nline 2\n"},
			{[]string{"read", "/missing"}, 1, "open /missing: No such file or directory\n"},
		} {
			want.WriteString(run.want)
			got := exitAndLog(t, createAttached(t, node, cio.LogFile(path), run.args), path, run.code)
			if got != want.String() {
				t.Errorf("after %q the log is %q, want %q", run.args, got, want.String())
			}
		}
	})
}

func TestLogBinary(t *testing.T) {
	logger := filepath.Join(t.TempDir(), "logger")
	build := exec.Command("go", "build", "-o", logger, "./testdata/logger")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if text, err := build.CombinedOutput(); err != nil {
		t.Fatalf("building the logging binary: %v\n%s", err, text)
	}
	eachVersionWithTasks(t, func(t *testing.T, node *testnode.Node) {
		for name, run := range map[string]struct {
			args     []string
			terminal bool
			want     string
		}{
			"stdout":   {[]string{"args", "one", "two"}, false, "stdout: one\nstdout: two\n"},
			"stderr":   {[]string{"lines", "2"}, false, "stderr: line 1\nstderr: line 2\n"},
			"terminal": {[]string{"lines", "1"}, true, "stdout: line 1\n"},
		} {
			t.Run(name, func(t *testing.T) {
				node.NoLeaks(t)
				path := filepath.Join(t.TempDir(), "log")
				streams, opts := cio.BinaryIO(logger, map[string]string{"file": path}), []oci.SpecOpts{}
				if run.terminal {
					streams, opts = cio.TerminalBinaryIO(logger, map[string]string{"file": path}), append(opts, oci.WithTTY)
				}
				k := createAttached(t, node, streams, run.args, opts...)
				prefix := node.Namespace + "/" + k.container.ID() + " "
				got := strings.ReplaceAll(exitAndLog(t, k, path, 0), prefix, "")
				if got = strings.ReplaceAll(got, "\r", ""); got != run.want {
					t.Errorf("logged %q, want %q", got, run.want)
				}
			})
		}
	})
}

// If a logging binary fails to start, the task's creation fails with an error that names the binary.
func TestLogBinaryThatFails(t *testing.T) {
	eachVersionWithTasks(t, func(t *testing.T, node *testnode.Node) {
		const binary = "/nonexistent/logger"
		got := node.Ctr(t, "run", "--rm", "--runtime", runtime, "--log-uri", "binary://"+binary, tasksWasmImage, "unlogged", "/hello.wasm")
		if got.Code == 0 || !strings.Contains(got.Stderr, binary) {
			t.Errorf("got %+v, want an error that names %s", got, binary)
		}
		if got := node.Ctr(t, "containers", "delete", "unlogged"); got.Code != 0 && !strings.Contains(got.Stderr, "not found") {
			t.Errorf("deleting the container: %+v", got)
		}
	})
}

// A stream's name in /dev opens the stream, as natively.
func TestStreamsByName(t *testing.T) {
	eachVersionWithProbe(t, func(t *testing.T, node *testnode.Node) {
		const image = "example.com/tests/probe-native:latest"
		node.Import(t, testguest.Image(t, image, testguest.ImageOpts{Files: map[string]string{"/app": testguest.Build(t, "probe-native")}}))
		for _, path := range []string{"/dev/stdout", "/dev/stderr", "/dev/fd/1"} {
			for _, op := range []string{"append", "write"} {
				got := node.Ctr(t, runArgs(nil, "streams", op, path, "text")...)
				want := node.Ctr(t, "run", "--rm", "--runtime", stock, image, "streams", "/app", op, path, "text")
				check(t, op+" "+path, got, want)
				if got.Stdout+got.Stderr != "text" {
					t.Errorf("%s %s: %+v", op, path, got)
				}
			}
		}
		typed := strings.Repeat("typed\n", 1<<18)
		got := node.CtrWith(t, testnode.CtrOpts{Stdin: strings.NewReader(typed)}, runArgs(nil, "streams", "read", "/dev/stdin")...)
		if got.Code != 0 || got.Stdout != typed {
			t.Errorf("/dev/stdin: code %d, %d bytes, %q", got.Code, len(got.Stdout), got.Stderr)
		}
	})
}

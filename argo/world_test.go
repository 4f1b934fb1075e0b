package argo_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/wasmshim/containerd-shim-wasm/argo"
	"github.com/wasmshim/containerd-shim-wasm/internal/testoutput"
)

// TestMain clears the umask once for all tests, which run side by side: Run does it
// too, for the whole process.
func TestMain(m *testing.M) {
	syscall.Umask(0)
	os.Exit(m.Run())
}

// world is the root directory of a container.
type world struct {
	t      *testing.T
	root   string
	stdout *testoutput.Buffer
	stderr *testoutput.Buffer
	// cancel ends the context of Run.
	ctx    context.Context
	cancel context.CancelFunc
}

// applets are the commands that guests use.
var applets = []string{"sh", "cat", "mkdir", "ln", "rm", "sleep", "kill", "mkfifo", "printf", "seq", "head", "tr"}

// newWorld makes a container's root with a shell, users and Argo's volume.
func newWorld(t *testing.T) world {
	t.Helper()
	w := world{t: t, root: t.TempDir(), stdout: new(testoutput.Buffer), stderr: new(testoutput.Buffer)}
	w.ctx, w.cancel = context.WithCancel(context.Background())
	t.Cleanup(w.cancel)
	for _, dir := range []string{"bin", "etc", "dev", "tmp", "data", "var/run/argo"} {
		w.must(os.MkdirAll(w.path(dir), 0o755))
	}
	w.link("/bin/busybox", "bin/busybox")
	for _, applet := range applets {
		w.must(os.Symlink("busybox", w.path("bin/"+applet)))
	}
	w.write("/etc/passwd", "root:x:0:0:root:/root:/bin/sh\n#no:x:7:7::/:/bin/sh\n+x:x:8:8::/:/bin/sh\nworker:x:1234:1235::/:/bin/sh\n")
	w.write("/etc/group", "root:x:0:\nstaff:x:1235:worker\n")
	w.write("/dev/termination-log", "")
	return w
}

func (w world) path(name string) string { return filepath.Join(w.root, name) }

func (w world) volume() string { return w.path("var/run/argo") }

func (w world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// link makes a hard link, or a copy where that cannot be.
func (w world) link(from, to string) {
	w.t.Helper()
	err := os.Link(from, w.path(to))
	if errors.Is(err, unix.EXDEV) || errors.Is(err, unix.EPERM) {
		var data []byte
		if data, err = os.ReadFile(from); err == nil {
			// What a child forked meanwhile has open for writing cannot be executed.
			syscall.ForkLock.RLock()
			err = os.WriteFile(w.path(to), data, 0o755)
			syscall.ForkLock.RUnlock()
		}
	}
	w.must(err)
}

// longAgo is the time of files that worlds have in common.
var longAgo = time.Date(2024, 2, 29, 12, 34, 56, 789e6, time.UTC)

func (w world) write(name, content string) {
	w.t.Helper()
	w.must(os.MkdirAll(filepath.Dir(w.path(name)), 0o755))
	w.must(os.WriteFile(w.path(name), []byte(content), 0o644))
}

func (w world) symlink(target, name string) {
	w.t.Helper()
	w.must(os.MkdirAll(filepath.Dir(w.path(name)), 0o755))
	w.must(os.Symlink(target, w.path(name)))
}

// age gives all below a directory the same old time.
func (w world) age(dir string) {
	w.t.Helper()
	ts := unix.NsecToTimespec(longAgo.UnixNano())
	w.must(filepath.WalkDir(w.path(dir), func(name string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return unix.UtimesNanoAt(unix.AT_FDCWD, name, []unix.Timespec{ts, ts}, unix.AT_SYMLINK_NOFOLLOW)
	}))
}

func (w world) exists(name string) bool {
	_, err := os.Lstat(w.path(name))
	return err == nil
}

// await waits for a file.
func (w world) await(name string) {
	w.t.Helper()
	await(w.t, name, func() bool { return w.exists(name) })
}

// awaitLog waits for text on standard error.
func (w world) awaitLog(text string) {
	w.t.Helper()
	await(w.t, text, func() bool { return strings.Contains(w.stderr.String(), text) })
}

// patience bounds every wait: the real argoexec sleeps for seconds, and many run at once.
const patience = 3 * time.Minute

// await waits until a condition holds.
func await(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.After(patience)
	for !ok() {
		select {
		case <-deadline:
			t.Fatalf("waited in vain for %s", what)
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// outcome is what a container leaves.
type outcome struct {
	exit           int
	stdout, stderr string // of the guest, without log
	log            string
	message        string            // the termination message
	files          map[string]string // of the volume
}

// look reads the volume. Archives are described by their entries and the hash of
// what was compressed.
func (w world) look() map[string]string {
	w.t.Helper()
	files := map[string]string{}
	w.must(filepath.WalkDir(w.volume(), func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(w.volume(), name)
		if rel == "argoexec" || rel == "template" || rel == "." {
			return nil
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		files[rel] = info.Mode().String()
		if !info.Mode().IsRegular() {
			return nil
		}
		data, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		if strings.HasSuffix(rel, ".tgz") {
			files[rel] += "\n" + describe(w.t, data)
			return nil
		}
		if filepath.Base(rel) == "combined" {
			data = sortLines(data) // two streams are copied side by side
		}
		files[rel] += " " + short(data)
		return nil
	}))
	return files
}

func sortLines(data []byte) []byte {
	lines := strings.Split(string(data), "\n")
	slices.Sort(lines)
	return []byte(strings.Join(lines, "\n"))
}

func short(data []byte) string {
	if len(data) <= 200 {
		return fmt.Sprintf("%q", data)
	}
	return fmt.Sprintf("%d bytes, %x", len(data), sha256.Sum256(data))
}

func describe(t *testing.T, data []byte) string {
	t.Helper()
	unzipped, err := gzip.NewReader(bytes.NewReader(data))
	if err != nil {
		return "not gzip: " + err.Error()
	}
	hash := sha256.New()
	archive := tar.NewReader(io.TeeReader(unzipped, hash))
	var text strings.Builder
	for {
		header, err := archive.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return text.String() + "broken: " + err.Error()
		}
		content := sha256.New()
		n, err := io.Copy(content, archive)
		if err != nil {
			return text.String() + "broken: " + err.Error()
		}
		fmt.Fprintf(&text, "  %c %q -> %q %o %d:%d %s:%s %v dev %d,%d %v size %d %x\n", header.Typeflag, header.Name, header.Linkname, header.Mode,
			header.Uid, header.Gid, header.Uname, header.Gname, header.ModTime.UTC(), header.Devmajor, header.Devminor, header.Format, n, content.Sum(nil)[:4])
	}
	if _, err := io.Copy(io.Discard, io.TeeReader(unzipped, hash)); err != nil {
		return text.String() + "broken: " + err.Error()
	}
	return text.String() + fmt.Sprintf("  %x", hash.Sum(nil))
}

// container is what Kubernetes would start.
type container struct {
	name    string // main, if empty
	env     []string
	dir     string
	command []string // after "--"
	format  string   // of the log; text, if empty
}

func (c container) environment() []string {
	name := c.name
	if name == "" {
		name = "main"
	}
	return append([]string{"PATH=/bin", "ARGO_CONTAINER_NAME=" + name}, c.env...)
}

func (c container) line() []string {
	format := c.format
	if format == "" {
		format = "text"
	}
	return append([]string{argo.VolumePath + "/argoexec", "emissary", "--loglevel", "info", "--log-format", format, "--gloglevel", "0", "--"}, c.command...)
}

// signaller sends a signal to a running container, if it still runs.
type signaller func(syscall.Signal)

// signal sends a signal, again every five seconds, until the container has ended:
// argoexec keeps one signal at a time, and loses what comes while that is one of Go's
// own (SIGURG). While it ends, the next one would kill it.
func (w world) signal(send signaller, s syscall.Signal) {
	w.t.Helper()
	var sent time.Time
	await(w.t, "the end", func() bool {
		ended, _ := filepath.Glob(w.path("var/run/argo/ctr/*/exitcode"))
		if len(ended) == 0 && time.Since(sent) > 5*time.Second {
			send(s)
			sent = time.Now()
		}
		return len(ended) > 0
	})
}

// runReal runs a container under a real argoexec, in a pid namespace of its own as in a
// container. Never without: argoexec passes a signal on to process -1, which is
// every process there is.
func (w world) runReal(c container, argoexec string, during func(world, signaller)) outcome {
	w.t.Helper()
	w.link(argoexec, "var/run/argo/argoexec")
	line := c.line()
	cmd := &exec.Cmd{
		Path: line[0], Args: line, Env: c.environment(), Dir: "/" + c.dir,
		Stdout: w.stdout, Stderr: w.stderr, SysProcAttr: &syscall.SysProcAttr{Chroot: w.root, Cloneflags: syscall.CLONE_NEWPID},
	}
	w.must(cmd.Start())
	ended := make(chan struct{})
	go func() { _ = cmd.Wait(); close(ended) }()
	w.t.Cleanup(func() { _ = cmd.Process.Kill(); <-ended })
	if during != nil {
		during(w, func(s syscall.Signal) {
			if err := cmd.Process.Signal(s); !errors.Is(err, os.ErrProcessDone) {
				w.must(err)
			}
		})
	}
	select {
	case <-ended:
	case <-time.After(patience):
		w.t.Fatalf("argoexec does not end:\n%s", w.stderr)
	}
	return w.finish(cmd.ProcessState.ExitCode())
}

// runOurs runs a container under the Emissary.
func (w world) runOurs(c container, during func(world, signaller)) outcome {
	w.t.Helper()
	command, ok, err := argo.Parse(c.line())
	if !ok || err != nil {
		w.t.Fatalf("Parse = %v, %v", ok, err)
	}
	signals := make(chan syscall.Signal, 1)
	stdout, stderr := newPipe(w.t, w.stdout), newPipe(w.t, w.stderr)
	e := argo.Emissary{
		Command: command, Env: c.environment(), Volume: w.volume(), Root: w.root, Dir: "/" + c.dir,
		Stdout: stdout.w, Stderr: stderr.w, Signals: signals, Start: w.starter(c),
	}
	result := make(chan int, 1)
	var exit int
	go func() { result <- e.Run(w.ctx) }()
	if during != nil {
		during(w, func(s syscall.Signal) {
			select {
			case signals <- s:
			default: // the one before has not been taken yet
			}
		})
	}
	select {
	case exit = <-result:
	case <-time.After(patience):
		w.t.Fatalf("Run does not end:\n%s", w.stderr)
	}
	stdout.end()
	stderr.end()
	return w.finish(exit)
}

// finish tells the guest's standard error from the log.
func (w world) finish(exit int) outcome {
	o := outcome{exit: exit, stdout: w.stdout.String()}
	for line := range strings.Lines(w.stderr.String()) {
		if strings.HasPrefix(line, "time=") || strings.HasPrefix(line, "Error: ") {
			o.log += line
		} else {
			o.stderr += line
		}
	}
	if message, err := os.ReadFile(w.path("dev/termination-log")); err == nil {
		o.message = string(message)
	}
	o.stderr = strings.TrimSuffix(o.stderr, o.message+"\n") // which a real argoexec prints too
	o.files = w.look()
	return o
}

// pipe copies what is written to it.
type pipe struct {
	w      *os.File
	copied chan struct{}
}

func newPipe(t *testing.T, to io.Writer) pipe {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	p := pipe{w, make(chan struct{})}
	go func() {
		_, _ = io.Copy(to, r)
		r.Close()
		close(p.copied)
	}()
	return p
}

func (p pipe) end() {
	p.w.Close()
	<-p.copied
}

// starter starts native guests in the world.
func (w world) starter(c container) argo.Starter {
	return func(_ context.Context, a argo.Attempt) (argo.Guest, error) {
		file := a.Args[0]
		if !strings.Contains(file, "/") {
			file = "/bin/" + file
		}
		cmd := &exec.Cmd{
			Path: file, Args: a.Args, Env: c.environment(), Dir: "/" + c.dir, Stdout: a.Stdout, Stderr: a.Stderr,
			SysProcAttr: &syscall.SysProcAttr{Chroot: w.root, Setpgid: true},
		}
		if err := cmd.Start(); err != nil {
			return nil, err
		}
		w.t.Cleanup(func() { _ = process{cmd}.Signal(syscall.SIGKILL) }) // what it left behind
		return process{cmd}, nil
	}
}

// process is a native guest.
type process struct{ *exec.Cmd }

func (p process) Signal(s syscall.Signal) error {
	if p.Process.Pid <= 1 {
		return fmt.Errorf("not a process of a test: %d", p.Process.Pid)
	}
	return syscall.Kill(-p.Process.Pid, s)
}

func (p process) Wait() (int, syscall.Signal, error) {
	err := p.Cmd.Wait()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		return 0, 0, err
	}
	status := p.ProcessState.Sys().(syscall.WaitStatus)
	if status.Signaled() {
		return 0, status.Signal(), nil
	}
	return status.ExitStatus(), 0, nil
}

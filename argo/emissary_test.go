package argo_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/wasmshim/containerd-shim-wasm/argo"
)

// run runs a scene under the Emissary alone: for what a real argoexec does otherwise, or
// cannot be asked to do.
func (s scene) run(t *testing.T) outcome {
	t.Helper()
	o := s.world(t).runOurs(s.container, s.during)
	if s.check != nil {
		s.check(t, o)
	}
	if t.Failed() {
		t.Logf("exit code %d, message %q, files %q, log:\n%s", o.exit, o.message, o.files, o.log)
	}
	return o
}

func runAll(t *testing.T, scenes []scene) {
	for _, s := range scenes {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			s.run(t)
		})
	}
}

func says(text string) func(*testing.T, outcome) {
	return func(t *testing.T, o outcome) {
		t.Helper()
		if !strings.Contains(o.message, text) {
			t.Errorf("termination message %q, want %q", o.message, text)
		}
	}
}

// TestUnlikeArgoexec has what differs from a real argoexec on purpose. In the first
// group that runs a guest zero times and calls it success, goes on retrying when
// asked to end (3.x) or loses the exit code (4.x), hears nothing but SIGKILL while it
// pauses, and needs a /tmp. In the second it waits for a writer for ever, leaves a
// broken archive for Argo to upload, or writes elsewhere in its volume.
func TestUnlikeArgoexec(t *testing.T) {
	retry := set(`"retryStrategy":{"retries":5,"duration":"1h"},`)
	failing := script("echo run >&2; exit 3").named("a")
	runAll(t, []scene{
		{name: "no retries are one run", template: set(`"retryStrategy":{"retries":0},`), container: script(attempts(9)).named("a"), check: both(wants(3, "3"), count("1"))},
		{name: "retries that are no number", template: set(`"retryStrategy":{"retries":"many"},`), container: failing, check: both(wants(64, "64"), says("whole number"))},
		{name: "SIGTERM ends retries", template: retry, container: failing, check: both(wants(3, "3")),
			during: func(w world, send signaller) { w.awaitLog("run again"); send(syscall.SIGTERM) }},
		{name: "signal file ends retries", template: retry, container: failing, check: both(wants(3, "3"), has("!ctr/a/signal")),
			during: func(w world, _ signaller) { w.awaitLog("run again"); w.write("/var/run/argo/ctr/a/signal", "15\n") }},
		{name: "SIGTERM to a guest ends retries", template: set(`"retryStrategy":{"retries":5},`), container: script("trap 'exit 3' TERM; " + looping).named("a"), check: wants(3, "3"),
			during: func(w world, send signaller) { w.await("data/up"); send(syscall.SIGTERM) }},
		{name: "SIGTERM ends the pause before", template: plain, container: script("echo no").with("ARGO_DEBUG_PAUSE_BEFORE=true"), check: wants(143, "64"),
			during: func(w world, send signaller) { w.awaitLog("waiting to be released"); send(syscall.SIGTERM) }},
		{name: "SIGTERM ends the pause after", template: parameters("/etc/group"), container: script("exit 4").with("ARGO_DEBUG_PAUSE_AFTER=true"), check: wants(4, "4", "outputs/parameters/etc/group"),
			during: func(w world, send signaller) { w.awaitLog("waiting to be released"); send(syscall.SIGTERM) }},
		{name: "background process keeps no logs open", template: plain, container: script("sleep 1000 & echo out").with("ARGO_INCLUDE_SCRIPT_OUTPUT=true"), check: wants(0, "0", "ctr/main/stdout")},
		{name: "no name", template: plain, container: script("echo no").with("ARGO_CONTAINER_NAME=../../x"), check: leavesNothing},
		{name: "long argument without tmp", template: plain, check: wants(0, "0"),
			container: container{command: []string{"sh", "-c", `head -c 40 "${1#@}"`}, env: []string{"ARGO_CONTAINER_ARGS_FILE=/data/args"}},
			prepare: func(w world) {
				w.write("/data/args", quoted([]string{"name", long}))
				w.must(os.Remove(w.path("tmp")))
			}},

		{name: "parameter is a named pipe", template: parameters("/data/p"), container: script("mkfifo /data/p"), check: both(wants(64, "0", "!outputs/parameters/data/p"), says("a named pipe"))},
		{name: "parameter is a device", template: parameters("/data/zero"), container: nothing, check: both(wants(64, "0", "!outputs"), says("a device")),
			prepare: func(w world) { w.must(syscall.Mknod(w.path("data/zero"), syscall.S_IFCHR|0o666, 1<<8|5)) }},
		{name: "parameter is a directory", template: parameters("/data"), container: nothing, check: both(wants(64, "0", "!outputs"), says("a directory"))},
		{name: "parameter out of its place", template: parameters("../../template"), container: container{dir: "data/a", command: nothing.command},
			check:   both(wants(64, "0", "!outputs/parameters"), says("leads out")),
			prepare: func(w world) { w.write("/data/a/x", ""); w.write("/template", "mine") }},
		{name: "artifact out of its place", template: artifacts("../../argoexec"), container: container{dir: "data/a", command: nothing.command},
			check:   both(wants(64, "0", "!outputs/artifacts"), says("leads out")),
			prepare: func(w world) { w.write("/data/a/x", ""); w.write("/argoexec", "mine") }},
		{name: "artifact is a named pipe", template: artifacts("/data/p"), container: script("mkfifo /data/p"), check: both(wants(64, "0", "!outputs/artifacts/data/p.tgz", "!outputs/artifacts/data/.part"), says("a named pipe"))},
		{name: "artifact with a socket", template: artifacts("/data/d"), container: nothing, check: both(wants(64, "0", "!outputs/artifacts/data/d.tgz", "!outputs/artifacts/data/.part"), says("socket")),
			prepare: func(w world) {
				w.write("/data/d/a", "x")
				w.must(syscall.Mknod(w.path("data/d/s"), syscall.S_IFSOCK|0o600, 0))
			}},
	})
}

// has checks for files alone.
func has(files ...string) func(*testing.T, outcome) {
	return func(t *testing.T, o outcome) {
		t.Helper()
		for _, name := range files {
			name, absent := strings.CutPrefix(name, "!")
			if _, ok := o.files[name]; ok == absent {
				t.Errorf("%s: there %v, want %v", name, ok, !absent)
			}
		}
	}
}

func leavesNothing(t *testing.T, o outcome) {
	t.Helper()
	if o.exit != argo.ExitFailure || len(o.files) != 0 {
		t.Errorf("exit code %d, files %q, want %d and none", o.exit, o.files, argo.ExitFailure)
	}
}

// TestPlanted puts things in the way that lead elsewhere or have no end. Nothing
// outside of the container's root is read or changed, and nothing hangs.
func TestPlanted(t *testing.T) {
	outside := t.TempDir()
	secret := filepath.Join(outside, "secret")
	if err := os.WriteFile(secret, []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	up := strings.Repeat("../", 30)
	fifo := func(name string) func(world) {
		return func(w world) { w.mkdirFor(name); w.must(syscall.Mkfifo(w.path(name), 0o666)) }
	}
	link := func(target, name string) func(world) {
		return func(w world) { w.symlink(target, name) }
	}
	t.Run("scenes", func(t *testing.T) {
		runAll(t, []scene{
			{name: "parameter links out", template: parameters("/data/abs", "/data/rel", "/data/dir/secret"), container: nothing, check: wants(0, "0", "!outputs"),
				prepare: func(w world) {
					w.symlink(secret, "/data/abs")
					w.symlink(up+secret, "/data/rel")
					w.symlink(outside, "/data/dir")
				}},
			{name: "artifact links out", template: artifacts("/data/abs", "/data/rel", "/data/dir"), container: nothing, check: wants(0, "0", "!outputs"),
				prepare: func(w world) {
					w.symlink(secret, "/data/abs")
					w.symlink(up+secret, "/data/rel")
					w.symlink(outside, "/data/dir")
				}},
			{name: "dots", template: parameters(up + "etc/group"), container: nothing, check: both(wants(64, "0"), says("leads out"))},
			{name: "outputs is a link", template: parameters("/etc/group"), container: nothing, check: both(wants(64, "0"), says("symbolic link")), prepare: link(outside, "/var/run/argo/outputs")},
			{name: "parameters is a link", template: parameters("/etc/group"), container: nothing, check: both(wants(64, "0"), says("symbolic link")), prepare: link(outside, "/var/run/argo/outputs/parameters")},
			{name: "directory of a parameter is a link", template: parameters("/etc/group"), container: nothing, check: both(wants(64, "0"), says("symbolic link")), prepare: link(outside, "/var/run/argo/outputs/parameters/etc")},
			{name: "parameter's copy is a link", template: parameters("/etc/group"), container: nothing, check: wants(0, "0", "outputs/parameters/etc/group"), prepare: link(secret, "/var/run/argo/outputs/parameters/etc/group")},
			{name: "archive is a link", template: artifacts("/etc/group"), container: nothing, check: wants(0, "0", "outputs/artifacts/etc/group.tgz"), prepare: link(secret, "/var/run/argo/outputs/artifacts/etc/group.tgz")},
			{name: "half an archive is a link", template: artifacts("/etc/group"), container: nothing, check: wants(0, "0", "outputs/artifacts/etc/group.tgz"), prepare: link(secret, "/var/run/argo/outputs/artifacts/etc/.part")},
			{name: "exit code is a link", template: plain, container: nothing, check: wants(0, "0"), prepare: link(secret, "/var/run/argo/ctr/main/exitcode")},
			{name: "exit code is a pipe", template: plain, container: nothing, check: wants(0, "0"), prepare: fifo("var/run/argo/ctr/main/exitcode")},
			{name: "directory is a link", template: plain, container: script("echo no"), check: func(t *testing.T, o outcome) {
				if o.exit != argo.ExitFailure || o.stdout != "" || !strings.Contains(o.message, "symbolic link") {
					t.Errorf("exit code %d, output %q, message %q", o.exit, o.stdout, o.message)
				}
			}, prepare: link(outside, "/var/run/argo/ctr/main")},
			{name: "stdout is a link", template: plain, container: script("echo no").with("ARGO_INCLUDE_SCRIPT_OUTPUT=true"), check: both(wants(64, "64"), says("symbolic link")), prepare: link(secret, "/var/run/argo/ctr/main/stdout")},
			{name: "combined is a pipe", template: plain, container: script("echo no").with("ARGO_INCLUDE_SCRIPT_OUTPUT=true"), check: wants(64, "64"), prepare: fifo("var/run/argo/ctr/main/combined")},
			{name: "template is a link", container: script("echo no"), check: both(wants(64, "64"), says("symbolic link")), prepare: link("/etc/group", "/var/run/argo/template")},
			{name: "template is a pipe", container: script("echo no"), check: both(wants(64, "64"), says("a named pipe")), prepare: fifo("var/run/argo/template")},
			{name: "template is huge", container: script("echo no"), check: both(wants(64, "64"), says("larger than")),
				prepare: func(w world) {
					w.write("/var/run/argo/template", "{")
					w.must(os.Truncate(w.path("var/run/argo/template"), 1<<40))
				}},
			{name: "signal is a pipe", template: plain, container: script("sleep 0.3"), check: wants(0, "0"), prepare: fifo("var/run/argo/ctr/main/signal")},
			{name: "dependency's code is a pipe, then a link", template: set(""), container: nothing.named("b"), check: wants(0, "0"), prepare: fifo("var/run/argo/ctr/a/exitcode"),
				during: func(w world, _ signaller) {
					w.awaitLog("waiting for dependency")
					w.must(os.Remove(w.path("var/run/argo/ctr/a/exitcode")))
					w.symlink(secret, "/var/run/argo/ctr/a/exitcode")
					w.must(os.Remove(w.path("var/run/argo/ctr/a/exitcode")))
					w.write("/var/run/argo/ctr/a/exitcode", "0")
				}},
			{name: "arguments are a pipe", template: plain, container: script("echo no").with("ARGO_CONTAINER_ARGS_FILE=/data/args"), check: both(wants(64, "64"), says("a named pipe")), prepare: fifo("data/args")},
			{name: "long argument's file links out", template: plain, container: container{command: []string{"sh", "-c", "exit 0"}, env: []string{"ARGO_CONTAINER_ARGS_FILE=/data/args"}}, check: wants(64, "64"),
				prepare: func(w world) {
					w.write("/data/args", quoted([]string{long}))
					w.symlink(secret, "/tmp/argo_arg_2.txt")
				}},
			{name: "termination message links out", template: `{`, container: script("echo no"), check: wants(64, "64"),
				prepare: func(w world) {
					w.must(os.Remove(w.path("dev/termination-log")))
					w.symlink(up+secret, "/dev/termination-log")
				}},
			{name: "passwd links out", template: artifacts("/data/f"), container: nothing, check: wants(0, "0", "outputs/artifacts/data/f.tgz"),
				prepare: func(w world) {
					w.write("/data/f", "x")
					w.must(os.Remove(w.path("etc/passwd")))
					w.symlink("/dev/pipe", "/etc/passwd")
					w.must(syscall.Mkfifo(w.path("dev/pipe"), 0o666))
				}},
		})
	})
	data, err := os.ReadFile(secret)
	if err != nil || string(data) != "secret" {
		t.Errorf("the file outside now holds %q, %v", data, err)
	}
	if entries, err := os.ReadDir(outside); err != nil || len(entries) != 1 {
		t.Errorf("outside there are now %v, %v", entries, err)
	}
}

func (w world) mkdirFor(name string) {
	w.t.Helper()
	w.must(os.MkdirAll(filepath.Dir(w.path(name)), 0o777))
}

// TestCancel ends the guest with the context.
func TestCancel(t *testing.T) {
	w := scene{template: plain}.world(t)
	c := script("trap '' TERM; " + looping)
	o := w.runOurs(c, func(w world, send signaller) {
		w.await("data/up")
		w.cancel()
	})
	wants(137, "137")(t, o)
}

// TestLog looks at both formats.
func TestLog(t *testing.T) {
	for _, format := range []string{"text", "json"} {
		w := scene{template: `{`}.world(t)
		c := container{command: []string{"x"}, format: format}
		o := w.runOurs(c, nil)
		lines := strings.Split(strings.TrimSpace(w.stderr.String()), "\n")
		if last := lines[len(lines)-1]; !strings.HasPrefix(last, "Error: read the template: ") {
			t.Errorf("%s: the last line is %q", format, last)
		}
		if o.exit != argo.ExitFailure {
			t.Errorf("%s: exit code %d", format, o.exit)
		}
	}
	w := scene{template: plain}.world(t)
	w.runOurs(container{command: []string{"sh", "-c", "exit 3"}, format: "json"}, nil)
	line, _, _ := strings.Cut(w.stderr.String(), "\n")
	var entry struct {
		Argo  bool   `json:"argo"`
		Level string `json:"level"`
		Msg   string `json:"msg"`
		Error string `json:"error"`
	}
	if err := json.Unmarshal([]byte(line), &entry); err != nil || !entry.Argo || entry.Level != "INFO" || entry.Msg != "sub-process exited" || entry.Error != "exit status 3" {
		t.Errorf("%q is %+v, %v", line, entry, err)
	}
}

// TestWriteExitCode has the daemon's part.
func TestWriteExitCode(t *testing.T) {
	volume := t.TempDir()
	root, err := os.OpenFile(volume, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	file := filepath.Join(volume, "ctr", "main", "exitcode")
	for range 2 { // the second, other one does not replace the first
		if err := argo.WriteExitCode(root, "main", 137); err != nil {
			t.Fatal(err)
		}
		if data, err := os.ReadFile(file); err != nil || string(data) != "137" {
			t.Errorf("the file holds %q, %v", data, err)
		}
		if err := argo.WriteExitCode(root, "main", 1); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"", ".", "..", "a/b", "/a", "a\x00", strings.Repeat("a", 100<<10)} {
		if err := argo.WriteExitCode(root, name, 1); err == nil || len(err.Error()) > 1000 {
			t.Errorf("container %.80q: %.2000v", name, err)
		}
	}
	outside := t.TempDir()
	if err := os.Symlink(outside, filepath.Join(volume, "ctr", "link")); err != nil {
		t.Fatal(err)
	}
	if err := argo.WriteExitCode(root, "link", 1); err == nil {
		t.Error("a link was followed")
	}
	if entries, err := os.ReadDir(outside); err != nil || len(entries) != 0 {
		t.Errorf("outside there are %v, %v", entries, err)
	}
}

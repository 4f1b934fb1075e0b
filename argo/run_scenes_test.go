package argo_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

const plain = `{"name":"t","inputs":{},"outputs":{},"metadata":{},"container":{"name":"main","image":"x","resources":{}}}`

func script(text string) container { return container{command: []string{"sh", "-c", text}} }

func (c container) named(name string) container { c.name = name; return c }

func (c container) with(env ...string) container { c.env = env; return c }

// set is the template of a container set with a container "b" that needs "a".
func set(retry string) string {
	return `{"name":"t","containerSet":{` + retry + `"containers":[{"name":"a"},{"name":"b","dependencies":["a"]},{"name":"main","dependencies":["a","b"]}]}}`
}

// attempts counts its runs in a file, and fails until the n-th.
func attempts(n int) string {
	return fmt.Sprintf(`cat /data/n; echo x >> /data/n; set -- $(cat /data/n); echo run $# >&2; [ $# -ge %d ] || exit 3`, n)
}

// looping tells that it runs, and goes on for ever without a child that a signal to
// all could hit.
const looping = `mkfifo /data/fifo; exec 3<>/data/fifo; : > /data/up; while :; do read x <&3; done`

// leftSignal is a file that argoexec may leave behind: when a sidecar ends it writes
// signals there even if the guest has ended already.
const leftSignal = "ctr/s/signal"

func count(line string) func(*testing.T, outcome) {
	return func(t *testing.T, o outcome) {
		t.Helper()
		if have := strings.Count(o.stderr, "run "); fmt.Sprint(have) != line {
			t.Errorf("the guest ran %d times, want %s", have, line)
		}
	}
}

func both(checks ...func(*testing.T, outcome)) func(*testing.T, outcome) {
	return func(t *testing.T, o outcome) {
		for _, check := range checks {
			check(t, o)
		}
	}
}

func quoted(v any) string {
	data, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return string(data)
}

var long = strings.Repeat("long argument. ", 10000)

// runScenes are about running the guest: codes, signals, retries, waiting.
var runScenes = []scene{
	{name: "exit 0", template: plain, container: script("echo out; echo err >&2"), check: wants(0, "0")},
	{name: "exit 1", template: plain, container: script("exit 1"), check: wants(1, "1")},
	{name: "exit 42", template: plain, container: script("exit 42"), check: wants(42, "42")},
	{name: "exit 255", template: plain, container: script("exit 255"), check: wants(255, "255")},
	{name: "arguments", template: plain, container: container{command: []string{"printf", "<%s>", "a", "", "b c", "--", "--loglevel", "ü"}}, check: wants(0, "0")},
	{name: "umask", template: plain, container: script("umask; : > /var/run/argo/made; mkdir /var/run/argo/dir"), check: wants(0, "0", "made", "dir")},
	{name: "no such command", template: plain, container: container{command: []string{"nonesuch"}}, check: wants(64, "64")},
	{name: "no such file", template: plain, container: container{command: []string{"/no/such/file"}}, check: wants(64, "64")},
	{name: "killed", template: plain, container: script("kill -9 $$"), check: wants(137, "137")},
	{name: "terminated", template: plain, container: script("kill -15 $$"), check: wants(143, "143")},
	{name: "SIGTERM", template: plain, container: script(looping), check: wants(143, "143"),
		during: func(w world, send signaller) { w.await("data/up"); w.signal(send, syscall.SIGTERM) }},
	{name: "SIGTERM caught", template: plain, container: script("trap 'exit 7' TERM; " + looping), check: wants(7, "7"),
		during: func(w world, send signaller) { w.await("data/up"); w.signal(send, syscall.SIGTERM) }},
	{name: "SIGUSR1 caught", template: plain, container: script("trap 'exit 8' USR1; " + looping), check: wants(8, "8"),
		during: func(w world, send signaller) { w.await("data/up"); w.signal(send, syscall.SIGUSR1) }},
	{name: "signal file", template: plain, container: script(looping), check: wants(143, "143", "!ctr/main/signal"),
		during: func(w world, _ signaller) { w.await("data/up"); w.write("/var/run/argo/ctr/main/signal", "15") }},
	{name: "signal file SIGKILL", template: plain, container: script("trap '' TERM; " + looping), check: wants(137, "137", "!ctr/main/signal"),
		during: func(w world, _ signaller) { w.await("data/up"); w.write("/var/run/argo/ctr/main/signal", "9") }},

	{name: "no template", container: script("echo no"), check: wants(64, "64")},
	{name: "bad template", template: `{"name":`, container: script("echo no"), check: wants(64, "64")},
	{name: "template of another type", template: `["name"]`, container: script("echo no"), check: wants(64, "64")},
	{name: "template with a field of another type", template: `{"outputs":{"artifacts":{}}}`, container: script("echo no"), check: wants(64, "64")},
	{name: "template is a directory", container: script("echo no"), check: wants(64, "64"),
		prepare: func(w world) { w.write("/var/run/argo/template/x", "") }},
	{name: "template with unknown fields", template: `{"name":"t","future":{"a":[1,{"b":null}]},"CONTAINER":{}}`, container: script("exit 5"), check: wants(5, "5")},

	{name: "retries until success", template: set(`"retryStrategy":{"retries":5},`), container: script(attempts(3)).named("a"), check: both(wants(0, "0"), count("3"))},
	{name: "retries in vain", template: set(`"retryStrategy":{"retries":"2","duration":"10ms"},`), container: script(attempts(9)).named("a"), check: both(wants(3, "3"), count("2"))},
	{name: "one retry", template: set(`"retryStrategy":{"retries":1,"duration":"1h"},`), container: script(attempts(9)).named("a"), check: both(wants(3, "3"), count("1"))},
	{name: "retries with captured output", template: set(`"retryStrategy":{"retries":2},`), check: wants(3, "3", "ctr/a/stdout", "ctr/a/combined"),
		container: script(attempts(9)).named("a").with("ARGO_INCLUDE_SCRIPT_OUTPUT=true")},
	{name: "retries of no command", template: set(`"retryStrategy":{"retries":2},`), container: container{name: "a", command: []string{"/nonesuch"}}, check: wants(64, "64")},
	{name: "bad retry duration", template: set(`"retryStrategy":{"retries":2,"duration":"soon"},`), container: script("echo no").named("a"), check: wants(64, "64")},
	{name: "negative retry duration", template: set(`"retryStrategy":{"retries":2,"duration":"-1s"},`), container: script("echo no").named("a"), check: wants(64, "64")},
	{name: "retries null", template: set(`"retryStrategy":{"retries":null},`), container: script("exit 6").named("a"), check: wants(6, "6")},

	// Upstream leaves an empty file, too. Its argoexec would have to fit on the disk, for each version.
	{name: "exit code on a full disk", template: plain, container: script("until [ -e /data/full ]; do sleep 0.1; done; exit 3"), without: versions,
		check: wants(3, ""), prepare: func(w world) {
			w.must(unix.Mount("tmpfs", w.path("var/run/argo"), "tmpfs", 0, "size=64k"))
			w.t.Cleanup(func() { w.must(unix.Unmount(w.path("var/run/argo"), unix.MNT_DETACH)) })
			w.write("/var/run/argo/template", plain)
		},
		during: func(w world, _ signaller) {
			w.await("var/run/argo/ctr/main")
			if err := os.WriteFile(w.path("var/run/argo/filler"), make([]byte, 128<<10), 0o644); !errors.Is(err, unix.ENOSPC) {
				w.t.Errorf("the disk is not full: %v", err)
			}
			w.write("/data/full", "")
		}},

	{name: "dependency succeeded", template: set(""), container: script("exit 4").named("b"), check: wants(4, "4"),
		prepare: func(w world) { w.write("/var/run/argo/ctr/a/exitcode", "0") }},
	{name: "dependency succeeds later", template: set(""), container: script("cat /data/late").named("b"), check: wants(0, "0"),
		during: func(w world, _ signaller) {
			w.await("var/run/argo/ctr/b")
			w.write("/data/late", "late")
			w.write("/var/run/argo/ctr/a/exitcode", "")
			w.write("/var/run/argo/ctr/a/exitcode", "0")
		}},
	{name: "dependency failed", template: set(""), container: script("echo no").named("b"), check: wants(64, "64"),
		prepare: func(w world) { w.write("/var/run/argo/ctr/a/exitcode", "3") }},
	{name: "second dependency failed", template: set(""), container: script("echo no"), check: wants(64, "64"),
		prepare: func(w world) {
			w.write("/var/run/argo/ctr/a/exitcode", "0")
			w.write("/var/run/argo/ctr/b/exitcode", "64")
		}},

	{name: "sidecar ends after main", ignore: leftSignal, template: `{"name":"t","container":{"name":"main"},"sidecars":[{"name":"s"},{"name":"z"}]}`, container: script(looping).named("s"),
		check:  both(wants(143, "143", "!ctr/s/signal")),
		during: func(w world, _ signaller) { w.await("data/up"); w.write("/var/run/argo/ctr/main/exitcode", "0") }},
	{name: "sidecar of a set", ignore: leftSignal, template: `{"name":"t","containerSet":{"containers":[{"name":"a"},{"name":"b"}]},"sidecars":[{"name":"s"}]}`,
		container: script("trap 'exit 9' TERM; " + looping).named("s"), check: wants(9, "9"),
		during: func(w world, _ signaller) {
			w.await("data/up")
			w.write("/var/run/argo/ctr/a/exitcode", "0")
			w.write("/var/run/argo/ctr/b/exitcode", "1")
		}},
	{name: "sidecar that does not want to end", ignore: leftSignal, without: []string{"3.6"}, // which never sends SIGKILL
		template: `{"name":"t","container":{},"sidecars":[{"name":"s"}]}`, check: wants(137, "137", "!ctr/s/signal"),
		container: script("trap '' TERM; " + looping).named("s").with("ARGO_TERMINATION_GRACE_PERIOD_SECONDS=3"),
		during:    func(w world, _ signaller) { w.await("data/up"); w.write("/var/run/argo/ctr/main/exitcode", "0") }},
	{name: "sidecar that ends first", ignore: leftSignal, template: `{"name":"t","container":{},"sidecars":[{"name":"s"}]}`, container: script("exit 2").named("s"), check: wants(2, "2")},

	{name: "captured script", template: plain, container: script("echo out; echo err >&2").with("ARGO_INCLUDE_SCRIPT_OUTPUT=true"), check: wants(0, "0", "ctr/main/stdout", "ctr/main/combined")},
	{name: "captured script that writes nothing", template: plain, container: script(":").with("ARGO_INCLUDE_SCRIPT_OUTPUT=true"), check: wants(0, "0", "ctr/main/stdout", "ctr/main/combined")},
	{name: "not captured", template: plain, container: script("echo out").with("ARGO_INCLUDE_SCRIPT_OUTPUT=false"), check: wants(0, "0", "!ctr/main/stdout", "!ctr/main/combined")},
	{name: "archived logs", template: `{"container":{},"archiveLocation":{"archiveLogs":true,"s3":{"key":"k"}}}`, container: script("seq 1 200000; exit 1"), check: wants(1, "1", "ctr/main/stdout", "ctr/main/combined")},
	{name: "logs not archived", template: `{"container":{},"archiveLocation":{"archiveLogs":false}}`, container: script("echo out"), check: wants(0, "0", "!ctr/main/stdout")},

	{name: "arguments from a file", template: plain, without: []string{"3.6"}, check: wants(0, "0"),
		container: container{command: []string{"printf", "<%s>"}, env: []string{"ARGO_CONTAINER_ARGS_FILE=/data/args"}},
		prepare: func(w world) {
			w.write("/data/real", quoted([]string{"one", "", "zwölf"}))
			w.symlink("real", "/data/args")
		}},
	{name: "long argument from a file", template: plain, without: []string{"3.6"}, check: wants(0, "0"),
		container: container{command: []string{"sh", "-c", `echo $# "$2"; head -c 40 "${2#@}"`}, env: []string{"ARGO_CONTAINER_ARGS_FILE=/data/args"}},
		prepare:   func(w world) { w.write("/data/args", quoted([]string{"name", "one", long})) }},
	{name: "no file of arguments", template: plain, without: []string{"3.6"}, check: wants(64, "64"),
		container: container{command: []string{"printf"}, env: []string{"ARGO_CONTAINER_ARGS_FILE=/data/args"}}},
	{name: "bad file of arguments", template: plain, without: []string{"3.6"}, check: wants(64, "64"),
		container: container{command: []string{"printf"}, env: []string{"ARGO_CONTAINER_ARGS_FILE=/data/args"}},
		prepare:   func(w world) { w.write("/data/args", `[1]`) }},

	{name: "pause before", template: plain, container: script("cat /data/late").with("ARGO_DEBUG_PAUSE_BEFORE=true"), check: wants(0, "0", "ctr/main/before"),
		during: func(w world, _ signaller) {
			w.await("var/run/argo/ctr/main")
			w.write("/data/late", "late")
			w.write("/var/run/argo/ctr/main/before", "")
		}},
	{name: "pause after", template: parameters("/data/late"), container: script(": > /data/done; exit 3").with("ARGO_DEBUG_PAUSE_AFTER=true"),
		check: wants(3, "3", "outputs/parameters/data/late"),
		during: func(w world, _ signaller) {
			w.await("data/done")
			w.write("/data/late", "late")
			w.write("/var/run/argo/ctr/main/after", "")
		}},
	{name: "SIGTERM before dependencies", template: set(""), container: script("echo no").named("b"), check: wants(143, "64"),
		during: func(w world, send signaller) {
			w.awaitLog("waiting for dependency")
			w.signal(send, syscall.SIGTERM)
		}},
}

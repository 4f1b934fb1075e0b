package step_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/wasmshim/containerd-shim-wasm/internal/testapiserver"
)

const withResult = "ARGO_INCLUDE_SCRIPT_OUTPUT=true"

// ended is a volume in which main has ended already.
func ended(more ...func(*world)) func(*world) {
	return func(w *world) {
		for _, f := range more {
			f(w)
		}
		w.exit("main", "0")
	}
}

// file returns a function that writes a file of the volume.
func file(name, content string) func(*world) { return func(w *world) { w.argo(name, content) } }

// reports returns a check that the last report but the label has some text in it.
func reports(text string) func(*testing.T, outcome) {
	return func(t *testing.T, o outcome) {
		t.Helper()
		if n := len(o.requests); n < 3 || !strings.Contains(fmt.Sprint(o.requests[n-2].Body), text) {
			t.Errorf("no report of %q: %v", text, o.requests)
		}
		if n := len(o.requests); n > 0 && !strings.Contains(fmt.Sprint(o.requests[n-1].Body), "completed:true") {
			t.Errorf("the last request is not about the label: %v", o.requests[n-1])
		}
	}
}

// exits returns a check of the exit code and the termination message.
func exits(code int, message string) func(*testing.T, outcome) {
	return func(t *testing.T, o outcome) {
		t.Helper()
		if o.exit != code || !strings.Contains(o.message, message) || (message == "") != (o.message == "") {
			t.Errorf("exit code %d and message %q, want %d and %q", o.exit, o.message, code, message)
		}
	}
}

func both(checks ...func(*testing.T, outcome)) func(*testing.T, outcome) {
	return func(t *testing.T, o outcome) {
		t.Helper()
		for _, check := range checks {
			check(t, o)
		}
	}
}

// parameters returns a template with output parameters, as JSON without the brackets around them.
func parameters(list string) string {
	return `{"name":"a","inputs":{},"outputs":{"parameters":[` + list + `]},"metadata":{},"container":{"name":"","image":"i","resources":{},` +
		`"volumeMounts":[{"name":"v","mountPath":"/vol"},{"name":"w","mountPath":"/vol/deep/"}]}}`
}

const pathParameter = `{"name":"p","valueFrom":{"path":"/tmp/p"}}`

// deadline returns a variable for a time from now.
func deadline(after time.Duration) string {
	return "ARGO_DEADLINE=" + time.Now().Add(after).Format(time.RFC3339)
}

var progressEnv = []string{"ARGO_PROGRESS_PATCH_TICK_DURATION=250ms", "ARGO_PROGRESS_FILE_TICK_DURATION=20ms"}

// awaitSignal waits for a signal file and takes it away, as an emissary does.
func (w *world) awaitSignal(container, number string) {
	w.t.Helper()
	name := w.path("var/run/argo/ctr/" + container + "/signal")
	w.await("signal "+number, func() bool {
		data, err := os.ReadFile(name)
		return err == nil && string(data) == number
	})
	w.must(os.Remove(name))
}

// awaitProgress waits until progress has been reported.
func (w *world) awaitProgress(text string) {
	w.t.Helper()
	w.await("progress", func() bool {
		for _, r := range w.server.Seen() {
			if strings.Contains(fmt.Sprint(r.Body), "progress:"+text) {
				return true
			}
		}
		return false
	})
}

var waitScenes = []scene{
	{
		name: "container", template: containerTemplate, prepare: ended(),
		check: both(exits(0, ""), reports("outputs:map[]")),
	},
	{
		name: "container that ends later", template: containerTemplate,
		during: func(w *world) {
			w.awaitRequests(1)
			w.must(os.MkdirAll(w.path("var/run/argo/ctr"), 0o777))
			w.must(os.MkdirAll(w.path("var/run/argo/ctr/main"), 0o777))
			w.exit("main", "3")
		},
		check: exits(0, ""),
	},
	{
		name: "instance id", template: containerTemplate, env: []string{"ARGO_INSTANCE_ID=i-1"}, prepare: ended(),
		check: exits(0, ""),
	},
	{
		name: "script with a result", template: scriptTemplate, env: []string{withResult},
		prepare: ended(file("ctr/main/stdout", "one\ntwo\n\n")),
		check:   reports("result:one\ntwo\n]"),
	},
	{
		name: "script with an empty result", template: scriptTemplate, env: []string{withResult},
		prepare: ended(file("ctr/main/stdout", "")),
		check:   reports("result:]"),
	},
	{
		name: "script with a result that is not UTF-8", template: scriptTemplate, env: []string{withResult},
		prepare: ended(file("ctr/main/stdout", "\xff\x00<a&b>\u2028\n")),
		check:   exits(0, ""),
	},
	{
		name: "script without its output", template: scriptTemplate, env: []string{withResult}, prepare: ended(),
		check: exits(64, "open /var/run/argo/ctr/main/stdout: no such file or directory"),
	},
	{
		name: "script whose result is not asked for", template: scriptTemplate, prepare: ended(file("ctr/main/stdout", "x")),
		check: reports("outputs:map[]"),
	},
	{
		name: "result of 256 KiB", template: scriptTemplate, env: []string{withResult},
		prepare: ended(file("ctr/main/stdout", strings.Repeat("x", 256<<10)+"\n")),
		check:   exits(0, ""),
	},
	{
		name: "result of more than 256 KiB", template: scriptTemplate, env: []string{withResult},
		prepare: ended(file("ctr/main/stdout", "lost"+strings.Repeat("0123456789", 30000)+"\n")),
		check:   exits(0, ""),
	},
	{
		name: "result of more than 256 KiB without a newline", template: scriptTemplate, env: []string{withResult},
		prepare: ended(file("ctr/main/stdout", "x"+strings.Repeat("y", 256<<10))),
		check:   exits(0, ""),
	},
	{
		name: "output parameter", template: parameters(pathParameter), prepare: ended(file("outputs/parameters/tmp/p", "value\n\n")),
		check: reports("value:value\n "),
	},
	{
		name: "output parameter that is missing", template: parameters(pathParameter), prepare: ended(),
		check: both(exits(64, "open /var/run/argo/outputs/parameters/tmp/p: no such file or directory"), reports("name:p")),
	},
	{
		name: "output parameter with a default", prepare: ended(),
		template: parameters(`{"name":"p","valueFrom":{"path":"/tmp/p","default":"d\n"},"globalName":"g","description":"d","enum":["d"],"default":"e"}`),
		check:    both(exits(0, ""), reports("value:d ")),
	},
	{
		name: "output parameters of other kinds", prepare: ended(file("outputs/parameters/a/b", "x")),
		template: parameters(`{"name":"p","value":"v"},{"name":"q","valueFrom":{"supplied":{}}},{"name":"s","valueFrom":{"expression":"x","parameter":"y"}},` +
			`{"name":"r","valueFrom":{"path":"/a/./c/../b"}},{"name":"t","valueFrom":{"configMapKeyRef":{"name":"m","key":"k"}}}`),
		check: exits(0, ""),
	},
	{
		name: "output parameters of which the second is missing", prepare: ended(file("outputs/parameters/a", "x"), file("outputs/parameters/c", "x")),
		template: parameters(`{"name":"a","valueFrom":{"path":"/a"}},{"name":"b","valueFrom":{"path":"/b"}},{"name":"c","valueFrom":{"path":"/c"}}`),
		check:    both(exits(64, "/b: no such"), reports("value:x")),
	},
	{
		name: "output parameter that is a directory", template: parameters(pathParameter), prepare: ended(file("outputs/parameters/tmp/p/x", "x")),
		check: exits(64, "is a directory"),
	},
	{
		name: "output parameter on a volume", template: parameters(`{"name":"p","valueFrom":{"path":"/vol/p"}}`),
		prepare: ended(func(w *world) { w.write("mainctrfs/vol/p", "value\n") }),
		check:   reports("value:value "),
	},
	{
		name: "output parameter on a volume by a link", template: parameters(`{"name":"p","valueFrom":{"path":"/vol/deep/p"}}`),
		prepare: ended(func(w *world) {
			w.write("mainctrfs/vol/deep/..data/p", "value")
			w.symlink("..data/p", "mainctrfs/vol/deep/p")
		}),
		check: reports("value:value "),
	},
	{
		name: "output parameter that is missing on a volume", template: parameters(`{"name":"p","valueFrom":{"path":"/vol/p"}}`), prepare: ended(),
		check: exits(64, "open /mainctrfs/vol/p: no such file or directory"),
	},
	{
		name: "container set", template: setTemplate, env: []string{withResult},
		during: func(w *world) {
			w.awaitRequests(1)
			w.argo("ctr/main/stdout", "out\n")
			w.exit("main", "0")
			w.exit("one", "1")
		},
		check: reports("result:out]"),
	},
	{
		name: "container set without main", env: []string{withResult},
		template: `{"containerSet":{"containers":[{"name":"one"},{"name":"two"}]}}`,
		prepare:  func(w *world) { w.exit("one", "0"); w.exit("two", "0") },
		check:    reports("outputs:map[]"),
	},
	{
		name: "deadline", template: containerTemplate, env: []string{deadline(2 * time.Second)},
		prepare: func(w *world) { w.must(os.MkdirAll(w.path("var/run/argo/ctr/main"), 0o777)) },
		during:  func(w *world) { w.awaitSignal("main", "15"); w.exit("main", "143") },
		check:   exits(0, "Step exceeded its deadline"),
	},
	{
		name: "deadline that has passed", template: setTemplate, env: []string{"ARGO_DEADLINE=2020-01-01T00:00:00Z"},
		prepare: func(w *world) {
			w.must(os.MkdirAll(w.path("var/run/argo/ctr/main"), 0o777))
			w.must(os.MkdirAll(w.path("var/run/argo/ctr/one"), 0o777))
		},
		during: func(w *world) {
			w.awaitSignal("main", "15")
			// Nobody takes this one away: its mode is compared.
			w.await("signal", func() bool {
				data, _ := os.ReadFile(w.path("var/run/argo/ctr/one/signal"))
				return string(data) == "15"
			})
			w.exit("main", "143")
			w.exit("one", "143")
		},
		check: exits(0, "Step exceeded its deadline"),
	},
	{
		name: "deadline before the container has begun", template: containerTemplate, env: []string{"ARGO_DEADLINE=2020-01-01T00:00:00Z"},
		during: func(w *world) { w.awaitSignal("main", "15"); w.exit("main", "143") },
		check:  exits(0, "Step exceeded its deadline"),
		// They fail to signal a container that has no directory yet.
		without: []string{"3.6", "3.7"},
	},
	{
		name: "deadline and grace", template: containerTemplate,
		env:     []string{"ARGO_DEADLINE=2020-01-01T00:00:00Z", "ARGO_TERMINATION_GRACE_PERIOD_SECONDS=5"},
		prepare: func(w *world) { w.must(os.MkdirAll(w.path("var/run/argo/ctr/main"), 0o777)) },
		during:  func(w *world) { w.awaitSignal("main", "15"); w.awaitSignal("main", "9"); w.exit("main", "137") },
		check:   exits(0, "Step exceeded its deadline"),
		// It sends no SIGKILL.
		without: []string{"3.6"},
	},
	{
		name: "deadline and an error", template: parameters(pathParameter), env: []string{"ARGO_DEADLINE=2020-01-01T00:00:00Z"},
		prepare: func(w *world) { w.must(os.MkdirAll(w.path("var/run/argo/ctr/main"), 0o777)) },
		during:  func(w *world) { w.awaitSignal("main", "15"); w.exit("main", "143") },
		check:   exits(64, "no such file"),
	},
	{
		name: "SIGTERM while killing", template: containerTemplate, env: []string{"ARGO_DEADLINE=2020-01-01T00:00:00Z"},
		prepare: func(w *world) { w.must(os.MkdirAll(w.path("var/run/argo/ctr/main"), 0o777)) },
		during:  func(w *world) { w.awaitSignal("main", "15"); w.terminate(); w.awaitEnd() },
		check:   holds(0, map[string]string{"var/run/argo/ctr/main/signal": `-rw-r--r-- "9"`}),
		// Their other thread may have ended the process before.
		without: versions,
	},
	{
		name: "SIGTERM while waiting", template: scriptTemplate,
		during: func(w *world) { w.awaitRequests(1); w.terminate() },
		check:  both(exits(0, ""), reports("outputs:map[]")),
	},
	{
		name: "SIGTERM while waiting for a result", template: scriptTemplate, env: []string{withResult},
		during: func(w *world) { w.awaitRequests(1); w.terminate() },
		check:  exits(64, "open /var/run/argo/ctr/main/stdout"),
	},
	{
		name: "progress", template: containerTemplate, env: progressEnv, loosely: true,
		during: func(w *world) {
			w.argo("progress", "0/3\n")
			w.awaitProgress("0/3")
			w.argo("progress", "0/3\nnonsense/x\n 2/3 \n")
			w.awaitProgress("2/3")
			w.exit("main", "0")
		},
		check: exits(0, ""),
	},
	{
		name: "progress without a slash", template: containerTemplate, env: progressEnv, loosely: true,
		during: func(w *world) {
			w.argo("progress", "50%\n")
			w.argo("progress", "50%\n1/2\n")
			w.awaitProgress("1/2")
			w.exit("main", "0")
		},
		// They panic.
		without: versions,
		check:   exits(0, ""),
	},
	{
		name: "the result is there already", template: containerTemplate, prepare: ended(func(w *world) { w.server.Create() }),
		check: exits(0, ""),
	},
	{
		name: "everything is forbidden", template: containerTemplate, prepare: ended(),
		answer: func(int, testapiserver.Request) (int, string) {
			return 403, testapiserver.Failure(403, "Forbidden", `workflowtaskresults.argoproj.io is forbidden: User "u" cannot create resource`)
		},
		check: exits(64, "workflowtaskresults.argoproj.io is forbidden"),
	},
	{
		name: "only the label is forbidden", template: containerTemplate, prepare: ended(),
		answer: func(_ int, r testapiserver.Request) (int, string) {
			if strings.Contains(fmt.Sprint(r.Body), "completed:true") {
				return 403, testapiserver.Failure(403, "Forbidden", `workflowtaskresults.argoproj.io "node-1" is forbidden`)
			}
			return 0, ""
		},
		check: exits(0, `"node-1" is forbidden`),
	},
	{
		name: "an error and another one", template: parameters(pathParameter), prepare: ended(),
		answer: func(n int, _ testapiserver.Request) (int, string) {
			if n == 0 {
				return 403, testapiserver.Failure(403, "Forbidden", "first is forbidden")
			}
			return 0, ""
		},
		check: exits(64, "first is forbidden"),
	},
	{
		name: "exit code is a directory", template: containerTemplate,
		prepare: func(w *world) { w.must(os.MkdirAll(w.path("var/run/argo/ctr/main/exitcode"), 0o777)) },
		check:   exits(0, ""),
	},
	{
		name: "exit code is a FIFO", template: containerTemplate,
		prepare: func(w *world) { w.fifo("var/run/argo/ctr/main/exitcode") },
		check:   exits(0, ""),
	},
	{
		name: "exit code is a link to a file outside", template: containerTemplate,
		prepare: func(w *world) { w.symlink("/dev/termination-log", "var/run/argo/ctr/main/exitcode") },
		check:   exits(0, ""),
	},
	{
		name: "exit code is a huge file", template: containerTemplate,
		prepare: func(w *world) { w.exit("main", ""); w.sparse("ctr/main/exitcode") },
		// Its content is not read by anybody, and too long to compare.
		during: func(w *world) { w.awaitEnd(); w.removeAll("var/run/argo/ctr") },
		check:  exits(0, ""),
	},
	{
		name: "exit code is a link to nothing", template: containerTemplate,
		prepare: func(w *world) { w.symlink("/nowhere", "var/run/argo/ctr/main/exitcode") },
		// They wait for ever.
		without: versions,
		check:   exits(0, ""),
	},
	{
		name: "the directory of the container is a file", template: containerTemplate,
		prepare: file("ctr/main", "x"),
		check:   exits(0, ""),
	},
	{
		name: "output is a directory", template: scriptTemplate, env: []string{withResult}, prepare: ended(file("ctr/main/stdout/x", "")),
		check: exits(64, "is a directory"),
	},
	{
		name: "output is a FIFO", template: scriptTemplate, env: []string{withResult}, prepare: ended(func(w *world) { w.fifo("var/run/argo/ctr/main/stdout") }),
		check:   exits(64, "it is not a regular file"),
		without: versions, // they wait for ever
	},
	{
		name: "output is a link to the token", template: scriptTemplate, env: []string{withResult},
		prepare: ended(func(w *world) {
			w.symlink("/var/run/secrets/kubernetes.io/serviceaccount/token", "var/run/argo/ctr/main/stdout")
		}),
		check:   both(exits(64, "too many levels of symbolic links"), noToken),
		without: versions, // they report the token
	},
	{
		name: "output is huge", template: scriptTemplate, env: []string{withResult},
		prepare: ended(func(w *world) { w.argo("ctr/main/stdout", ""); w.sparse("ctr/main/stdout") }),
		during:  func(w *world) { w.awaitEnd(); w.removeAll("var/run/argo/ctr") },
		check:   exits(0, ""),
		without: versions, // they need as much memory
	},
	{
		name: "output parameter is a link to the token", template: parameters(pathParameter),
		prepare: ended(func(w *world) {
			w.symlink("/var/run/secrets/kubernetes.io/serviceaccount/token", "var/run/argo/outputs/parameters/tmp/p")
		}),
		check:   both(exits(64, "too many levels of symbolic links"), noToken),
		without: versions, // they report the token
	},
	{
		name: "output parameter lies below a link", template: parameters(pathParameter),
		prepare: ended(func(w *world) {
			w.write("var/run/secrets/kubernetes.io/serviceaccount/p", testapiserver.Token)
			w.symlink("/var/run/secrets/kubernetes.io/serviceaccount", "var/run/argo/outputs/parameters/tmp")
		}),
		check:   both(exits(64, "too many levels of symbolic links"), noToken),
		without: versions, // they report the file
	},
	{
		name: "output parameter on a volume is a link to the token", template: parameters(`{"name":"p","valueFrom":{"path":"/vol/p"}}`),
		prepare: ended(func(w *world) {
			w.symlink("../../var/run/secrets/kubernetes.io/serviceaccount/token", "mainctrfs/vol/p")
		}),
		check:   both(exits(64, "no such file"), noToken),
		without: versions, // they report the token
	},
	{
		name: "output parameter is a FIFO", template: parameters(`{"name":"p","valueFrom":{"path":"/tmp/p","default":"d"}}`),
		prepare: ended(func(w *world) { w.fifo("var/run/argo/outputs/parameters/tmp/p") }),
		check:   both(exits(0, ""), reports("value:d ")),
		without: versions, // they wait for ever
	},
	{
		name: "output parameter is huge", template: parameters(pathParameter),
		prepare: ended(func(w *world) { w.argo("outputs/parameters/tmp/p", ""); w.sparse("outputs/parameters/tmp/p") }),
		during:  func(w *world) { w.awaitEnd(); w.removeAll("var/run/argo/outputs") },
		check:   exits(64, "it has more than"),
		without: versions, // they need as much memory
	},
	{
		name: "signal is a link", template: containerTemplate, env: []string{"ARGO_DEADLINE=2020-01-01T00:00:00Z"},
		prepare: func(w *world) {
			w.write("root/precious", "x")
			w.symlink("/root/precious", "var/run/argo/ctr/main/signal")
		},
		during:  func(w *world) { w.awaitSignal("main", "15"); w.exit("main", "0") },
		check:   holds(0, map[string]string{"root/precious": `-rw-r--r-- "x"`}),
		without: versions, // they write where it leads
	},
	{
		name: "template is a FIFO", template: "", prepare: func(w *world) { w.fifo("var/run/argo/template") },
		check:   exits(2, "it is not a regular file"),
		without: versions, // they wait for ever
	},
	{
		name: "template is missing", template: "",
		check: exits(2, "open /var/run/argo/template: no such file or directory"),
	},
}

// noToken checks that no request has the token in its body.
func noToken(t *testing.T, o outcome) {
	t.Helper()
	for _, r := range o.requests {
		if strings.Contains(fmt.Sprint(r.Body), testapiserver.Token) {
			t.Errorf("the token is reported: %v", r)
		}
	}
}

// sparse makes a file of the volume large.
func (w *world) sparse(name string) {
	w.t.Helper()
	w.must(os.Truncate(filepath.Join(w.path("var/run/argo"), name), 100<<30))
}

// terminate sends SIGTERM.
func (w *world) terminate() {
	w.t.Helper()
	w.must(unix.Kill(w.cmd.Process.Pid, syscall.SIGTERM))
}

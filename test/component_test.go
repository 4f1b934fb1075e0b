package test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/pkg/oci"

	"github.com/wasmshim/containerd-shim-wasm/internal/testguest"
	"github.com/wasmshim/containerd-shim-wasm/internal/testnode"
)

const componentsImage = "example.com/tests/components:latest"

// asComponent runs the same programs as asWasm, as components.
var asComponent = way{"component", runtime, componentsImage, wasmPrograms}

// importComponents gives the node an image with the probe as a component and as the module that it
// is made of.
func importComponents(t *testing.T, node *testnode.Node) {
	t.Helper()
	files := map[string]string{"/app.wasm": testguest.BuildComponent(t, "probe"), "/module.wasm": testguest.Build(t, "probe")}
	node.Import(t, testguest.Image(t, componentsImage, testguest.ImageOpts{Files: files, Dirs: []string{"/tmp"}}))
}

func eachVersionWithComponents(t *testing.T, test func(t *testing.T, node *testnode.Node)) {
	t.Helper()
	nodes.EachVersion(t, func(t *testing.T, node *testnode.Node) {
		importComponents(t, node)
		node.NoLeaks(t)
		test(t, node)
	})
}

func TestComponentHello(t *testing.T) {
	nodes.EachVersion(t, func(t *testing.T, node *testnode.Node) {
		for guest, want := range map[string]string{
			"hello-c":    "hello from C\n",
			"hello-go":   "hello from Go\n",
			"hello-rust": "hello from Rust\n",
		} {
			image := "example.com/tests/component-" + guest + ":latest"
			files := map[string]string{"/app.wasm": testguest.BuildComponent(t, guest)}
			node.Import(t, testguest.Image(t, image, testguest.ImageOpts{Files: files, Entrypoint: []string{"/app.wasm"}}))
			t.Run(guest, func(t *testing.T) {
				node.NoLeaks(t)
				check(t, guest, node.Ctr(t, "run", "--rm", "--runtime", runtime, image, guest), testnode.Result{Stdout: want})
			})
		}
	})
}

// Programs treat arguments, environment, streams and files the same as a module and as a component.
func TestComponentIsAsModule(t *testing.T) {
	eachVersionWithComponents(t, func(t *testing.T, node *testnode.Node) {
		for _, test := range []struct {
			flags []string
			stdin string
			args  []string
		}{
			{args: []string{"args", "one", "", "ü"}},
			{flags: []string{"--env", "A=b=c", "--env", "EMPTY="}, args: []string{"env"}},
			{flags: []string{"--cwd", "/tmp"}, args: []string{"pwd"}},
			{args: []string{"ls", "/"}},
			{args: []string{"stat", "/app.wasm"}},
			{args: []string{"lines", "100000"}},
			{stdin: strings.Repeat("0123456789abcde\n", 1<<16), args: []string{"cat"}},
			{args: []string{"write", "/tmp/a", "text", ",", "append", "/tmp/a", "more", ",", "read", "/tmp/a", ",", "rename", "/tmp/a", "/tmp/b", ",", "ls", "/tmp"}},
			{args: []string{"mkdir", "/tmp/d", ",", "symlink", "d", "/tmp/l", ",", "readlink", "/tmp/l", ",", "write", "/tmp/l/f", "x", ",", "ls", "/tmp/d"}},
			{args: []string{"read", "/../../etc/passwd"}},
			{args: []string{"ls", "/proc"}},
			{args: []string{"exit", "0"}},
			{args: []string{"exit", "1"}},
			{args: []string{"nonsense"}},
		} {
			run := func(program string) testnode.Result {
				args := append([]string{"run", "--rm", "--runtime", runtime}, test.flags...)
				args = append(append(args, componentsImage, "same", program), test.args...)
				got := node.CtrWith(t, testnode.CtrOpts{Stdin: strings.NewReader(test.stdin)}, args...)
				got.Stdout = strings.ReplaceAll(got.Stdout, program, "PROGRAM")
				return got
			}
			component, module := run("/app.wasm"), run("/module.wasm")
			if test.args[0] == "nonsense" {
				module.Code = 1 // the adapter reports only success or failure
			}
			check(t, strings.Join(test.args, " "), component, module)
		}
	})
}

// Volumes hold the pod's files, and read-only volumes stay read-only.
func TestComponentVolumes(t *testing.T) {
	eachVersionWithComponents(t, func(t *testing.T, node *testnode.Node) {
		dir := t.TempDir()
		put(t, "given", dir, "in", "file")
		if err := os.Mkdir(filepath.Join(dir, "out"), 0o755); err != nil {
			t.Fatal(err)
		}
		flags := append(bind(filepath.Join(dir, "in"), "/in", "rbind:ro"), bind(filepath.Join(dir, "out"), "/out", "rbind:rw")...)
		run := func(args ...string) testnode.Result {
			all := append(append([]string{"run", "--rm", "--runtime", runtime}, flags...), componentsImage, "volumes", "/app.wasm")
			return node.Ctr(t, append(all, args...)...)
		}
		check(t, "copy", run("copy", "/in/file", "/out/file"), testnode.Result{})
		if got := onHost(t, filepath.Join(dir, "out", "file")); got != "given" {
			t.Errorf("the volume holds %q", got)
		}
		check(t, "write", run("write", "/in/file", "x"), testnode.Result{Code: 1, Stderr: "open /in/file" + readOnlyOfComponent + "\n"})
	})
}

func TestComponentTraps(t *testing.T) {
	eachVersionWithComponents(t, func(t *testing.T, node *testnode.Node) {
		for command, reason := range map[string]string{"trap": "wasm `unreachable` instruction executed", "deep": "call stack exhausted"} {
			got := node.Ctr(t, "run", "--rm", "--runtime", runtime, componentsImage, command, "/app.wasm", command)
			if got.Code != 134 || got.Stdout != "" || !strings.Contains(got.Stderr, reason) || !strings.Contains(got.Stderr, "wasm backtrace:") {
				t.Errorf("%s: got %+v", command, got)
			}
		}
	})
}

// Exits, limits and execs of a component are the same as those of a module.
func TestComponentTask(t *testing.T) {
	eachVersionWithComponents(t, func(t *testing.T, node *testnode.Node) {
		for _, signal := range killSignals {
			looping := asComponent.run(t, node, "loop", "looping")
			looping.ctr("kill", "--signal", signal.name, looping.container.ID())
			looping.expectCode(signal.code)
			created := asComponent.create(t, node, "sleep")
			created.ctr("kill", "--signal", signal.name, created.container.ID())
			created.expectCode(signal.code)
		}
		grown := asComponent.createArgs(t, node, []string{"/app.wasm", "grow"}, oci.WithMemoryLimit(limitedMemory))
		grown.start()
		grown.expectCode(1)
		grown.output.await(t, "grew ")
		filler := asComponent.create(t, node, "fill", oci.WithMemoryLimit(limitedMemory), fillMount)
		filler.start()
		filler.expectCode(137)
		sleeping := asComponent.run(t, node, "sleep", "sleeping", oci.WithMemoryLimit(limitedMemory), oci.WithPidsLimit(32))
		check(t, "exec", node.Ctr(t, "tasks", "exec", "--exec-id", "e", sleeping.container.ID(), "/app.wasm", "say", "hello"), testnode.Result{Stdout: "hello\n"})
		sleeping.expectStatus(client.Running)
	})
}

// An error names a missing import of a component before the component runs. An export of a component can be
// called by name.
func TestComponentInterfaces(t *testing.T) {
	const ref = "example.com/tests/interfaces:latest"
	files := map[string]string{}
	for _, name := range []string{"functions", "hostimport", "http", "sockets", "error", "exit"} {
		files["/"+name+".wasm"] = testguest.Build(t, "component-"+name)
	}
	image := testguest.Image(t, ref, testguest.ImageOpts{Files: files})
	nodes.EachVersion(t, func(t *testing.T, node *testnode.Node) {
		node.Import(t, image)
		node.NoLeaks(t)
		run := func(program string) testnode.Result {
			return node.Ctr(t, "run", "--rm", "--runtime", runtime, ref, "interfaces", program)
		}
		for program, want := range map[string]testnode.Result{
			"/functions.wasm#greet":                         {Stdout: "hello from a function\n"},
			"/functions.wasm#accept":                        {},
			"/functions.wasm#example:greet/api@1.0.0#hello": {Stdout: "hello from a function\n"},
			"/functions.wasm#refuse":                        {Code: 1},
			"/functions.wasm#number":                        {},
			"/error.wasm":                                   {Code: 1},
			"/exit.wasm":                                    {Code: 42},
			"/sockets.wasm":                                 {},
			"/http.wasm":                                    {Stderr: "wasi:http: the request is denied (HTTP-request-denied): no setting of this version grants a Wasm container a network\n"},
		} {
			check(t, program, run(program), want)
		}
		if got := run("/functions.wasm#fail"); got.Code != 134 || !strings.Contains(got.Stderr, "unreachable") {
			t.Errorf("a function that traps: %+v", got)
		}
		for program, want := range map[string]string{
			"/functions.wasm":     "component /functions.wasm does not export wasi:cli/run: it is a library, not a command; name a function as /functions.wasm#FUNCTION (functions without arguments: \"greet\", \"example:greet/api@1.0.0#hello\", \"fail\", \"refuse\", \"accept\", \"number\")",
			"/functions.wasm#add": `component /functions.wasm exports no function "add" without arguments (it has: "greet", "example:greet/api@1.0.0#hello", "fail", "refuse", "accept", "number")`,
			"/hostimport.wasm":    "/hostimport.wasm imports what a Wasm container does not provide: example:host/api",
		} {
			if got := run(program); got.Code == 0 || !strings.Contains(got.Stderr, want) {
				t.Errorf("%s: got %+v, want %q", program, got, want)
			}
		}
	})
}

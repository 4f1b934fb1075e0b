package test

import (
	"slices"
	"strings"
	"testing"

	"github.com/wasmshim/containerd-shim-wasm/internal/testguest"
	"github.com/wasmshim/containerd-shim-wasm/internal/testnode"
)

const (
	stock        = "io.containerd.runc.v2"
	probeImage   = "example.com/tests/probe:latest"
	busyboxImage = "example.com/tests/busybox:latest"
)

// importProbe imports the probe's image into the node, unless the node has it already.
func importProbe(t *testing.T, node *testnode.Node) {
	t.Helper()
	if _, err := node.Client(t).GetImage(t.Context(), probeImage); err == nil {
		return
	}
	node.Import(t, testguest.Wasm(t, probeImage, "probe"))
}

// runArgs returns ctr's arguments to run the probe with args to its end and remove it. A command on ctr's
// command line also replaces the image's entry point.
func runArgs(flags []string, id string, args ...string) []string {
	return slices.Concat([]string{"run", "--rm", "--runtime", runtime}, flags, []string{probeImage, id, "/app.wasm"}, args)
}

// check compares a result with the wanted one; what names the case.
func check(t *testing.T, what string, got, want testnode.Result) {
	t.Helper()
	if got != want {
		t.Errorf("%s: got %+v, want %+v", what, got, want)
	}
}

func TestRunHello(t *testing.T) {
	nodes.EachVersion(t, func(t *testing.T, node *testnode.Node) {
		for guest, want := range map[string]string{
			"hello-c":    "hello from C\n",
			"hello-go":   "hello from Go\n",
			"hello-rust": "hello from Rust\n",
		} {
			image := "example.com/tests/" + guest + ":latest"
			node.Import(t, testguest.Wasm(t, image, guest))
			t.Run(guest, func(t *testing.T) {
				node.NoLeaks(t)
				check(t, guest, node.Ctr(t, "run", "--rm", "--runtime", runtime, image, guest), testnode.Result{Stdout: want})
			})
		}
	})
}

func TestRunExitCodes(t *testing.T) {
	nodes.EachVersion(t, func(t *testing.T, node *testnode.Node) {
		importProbe(t, node)
		node.NoLeaks(t)
		for code, text := range map[int]string{0: "0", 1: "1", 42: "42", 255: "255"} {
			check(t, "exit "+text, node.Ctr(t, runArgs(nil, "exit-"+text, "exit", text)...), testnode.Result{Code: code})
		}
	})
}

// A trap ends the container as an abort ends a native one. The error names the place in the guest.
func TestRunTraps(t *testing.T) {
	nodes.EachVersion(t, func(t *testing.T, node *testnode.Node) {
		importProbe(t, node)
		node.NoLeaks(t)
		for command, reason := range map[string]string{
			"trap": "wasm `unreachable` instruction executed",
			"deep": "call stack exhausted",
		} {
			got := node.Ctr(t, runArgs(nil, command, command)...)
			if got.Code != 134 || got.Stdout != "" {
				t.Errorf("%s: got %+v, want code 134 and no output", command, got)
			}
			for _, want := range []string{reason, "wasm backtrace:", "<unknown>!<wasm function "} {
				if !strings.Contains(got.Stderr, want) {
					t.Errorf("%s: stderr lacks %q: %q", command, want, got.Stderr)
				}
			}
		}
	})
}

func TestRunOtherFunction(t *testing.T) {
	nodes.EachVersion(t, func(t *testing.T, node *testnode.Node) {
		const image = "example.com/tests/other:latest"
		node.Import(t, testguest.Image(t, image, testguest.ImageOpts{
			Files:      map[string]string{"/probe.wasm": testguest.Build(t, "probe")},
			Entrypoint: []string{"/probe.wasm#other"},
		}))
		node.NoLeaks(t)
		got := node.Ctr(t, "run", "--rm", "--runtime", runtime, image, "other")
		check(t, "other", got, testnode.Result{Stdout: "other function\n"})
	})
}

// The guest receives the settings of the image, the command line and the working directory.
func TestRunArgumentsAndEnvironment(t *testing.T) {
	nodes.EachVersion(t, func(t *testing.T, node *testnode.Node) {
		const image = "example.com/tests/environment:latest"
		node.Import(t, testguest.Image(t, image, testguest.ImageOpts{
			Files:      map[string]string{"/bin/probe.wasm": testguest.Build(t, "probe")},
			Entrypoint: []string{"probe.wasm"},
			Cmd:        []string{"args", "from the image"},
			Env:        []string{"PATH=/nowhere:/bin", "KEPT=image", "CHANGED=image"},
			WorkingDir: "/work",
		}))
		for name, test := range map[string]struct {
			flags, command []string
			want           string
		}{
			"default-command": {nil, nil, "from the image\n"},
			"arguments":       {nil, []string{"probe.wasm", "args", "a b", "", "ü\t'\"", "--flag"}, "a b\n\nü\t'\"\n--flag\n"},
			"environment":     {[]string{"--env", "CHANGED=a=b"}, []string{"probe.wasm", "env"}, "PATH=/nowhere:/bin\nKEPT=image\nCHANGED=a=b\nHOME=/\nPWD=/work\n"},
			"directory":       {[]string{"--cwd", "/other"}, []string{"/bin/probe.wasm", "env"}, "PATH=/nowhere:/bin\nKEPT=image\nCHANGED=image\nHOME=/\nPWD=/other\n"},
		} {
			t.Run(name, func(t *testing.T) {
				node.NoLeaks(t)
				args := slices.Concat([]string{"run", "--rm", "--runtime", runtime}, test.flags, []string{image, name}, test.command)
				check(t, name, node.Ctr(t, args...), testnode.Result{Stdout: test.want})
			})
		}
	})
}

// A native image has the same results under our runtime as under the stock one.
func TestRunNative(t *testing.T) {
	nodes.EachVersion(t, func(t *testing.T, node *testnode.Node) {
		node.Import(t, testguest.Busybox(t, busyboxImage))
		for name, test := range map[string]struct {
			command []string
			want    testnode.Result
		}{
			"hello":  {[]string{"/hello"}, testnode.Result{Stdout: "hello from native C\n"}},
			"zero":   {[]string{"true"}, testnode.Result{}},
			"code":   {[]string{"sh", "-c", "echo out; echo err >&2; exit 42"}, testnode.Result{Stdout: "out\n", Stderr: "err\n", Code: 42}},
			"signal": {[]string{"sh", "-c", "ulimit -c 0; sh -c 'kill -SEGV $$'; exit $?"}, testnode.Result{Stderr: "Segmentation fault\n", Code: 139}},
			"stdin":  {[]string{"cat"}, testnode.Result{Stdout: "from stdin"}},
		} {
			for _, under := range []string{stock, runtime} {
				t.Run(name+"/"+under, func(t *testing.T) {
					node.NoLeaks(t)
					args := append([]string{"run", "--rm", "--runtime", under, busyboxImage, name}, test.command...)
					opts := testnode.CtrOpts{Stdin: strings.NewReader("from stdin")}
					check(t, name, node.CtrWith(t, opts, args...), test.want)
				})
			}
		}
	})
}

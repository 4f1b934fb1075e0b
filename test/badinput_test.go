package test

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/wasmshim/containerd-shim-wasm/internal/testguest"
	"github.com/wasmshim/containerd-shim-wasm/internal/testnode"
)

const (
	badImage   = "example.com/badinput/files:latest"
	emptyImage = "example.com/badinput/empty:latest"
	stockShim  = "io.containerd.runc.v2"
)

// badFiles is an image without entry point. It holds every kind of file that a user may name by mistake.
func badFiles(t *testing.T) string {
	t.Helper()
	keep := func(name, content string) string {
		path, err := testguest.Keep(name, []byte(content))
		if err != nil {
			t.Fatal(err)
		}
		return path
	}
	return testguest.Image(t, badImage, testguest.ImageOpts{
		Files: map[string]string{
			"/script":         keep("script", "this is not a program\n"),
			"/text.wasm":      testguest.Build(t, "text"),
			"/empty.wasm":     testguest.Build(t, "empty"),
			"/truncated.wasm": testguest.Build(t, "truncated"),
			"/imports.wasm":   testguest.Build(t, "unknownimports"),
			"/library.wasm":   testguest.Build(t, "noexports"),
			"/component.wasm": testguest.Build(t, "component"),
			"/probe.wasm":     testguest.Build(t, "probe"),
			"/big.wasm":       keep("big.wasm", string(testguest.Big(4<<20))),
			"/header.wasm":    keep("header.wasm", "\x00asm\x01"),
			"/version.wasm":   keep("version.wasm", "\x00asm\x02\x00\x00\x00"),
		},
		Links: map[string]string{"/dangling.wasm": "/nowhere"},
		Dirs:  []string{"/folder.wasm"},
	})
}

// badInput is one way to run something that cannot run, and what the error must say.
type badInput struct {
	name    string
	config  string   // of the shim, before the line with the cache's folder
	options []string // of ctr run
	image   string   // badImage if empty
	command []string
	want    []string
}

func badInputs(t *testing.T) []badInput {
	t.Helper()
	fifo := filepath.Join(t.TempDir(), "fifo")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	volume := func(source, destination string) []string {
		return []string{"--mount", "type=bind,src=" + source + ",dst=" + destination + ",options=rbind:ro"}
	}
	return []badInput{
		{name: "text", command: []string{"/text.wasm"}, want: []string{"/text.wasm is not a WebAssembly module", `it starts with "this is "`}},
		{name: "empty file", command: []string{"/empty.wasm"}, want: []string{"/empty.wasm is an empty file"}},
		{name: "truncated", command: []string{"/truncated.wasm"}, want: []string{"/truncated.wasm is not a valid WebAssembly module"}},
		{name: "less than a header", command: []string{"/header.wasm"}, want: []string{"/header.wasm is a truncated WebAssembly module"}},
		{name: "version", command: []string{"/version.wasm"}, want: []string{"/version.wasm", "of an unknown version"}},
		{name: "component", command: []string{"/component.wasm"}, want: []string{"component /component.wasm does not export wasi:cli/run", "#FUNCTION", "none"}},
		{name: "unknown imports", command: []string{"/imports.wasm"}, want: []string{"/imports.wasm imports", `"env"."foo"`, `"wasi_snapshot_preview1"."nonsense"`, "build it for WASI preview 1"}},
		{name: "no _start", command: []string{"/library.wasm"}, want: []string{"/library.wasm has no _start", "#FUNCTION", "none"}},
		{name: "unknown function", command: []string{"/probe.wasm#nonsense"}, want: []string{`/probe.wasm exports no function "nonsense"`, "_start", "other"}},
		{name: "empty function", command: []string{"/probe.wasm#"}, want: []string{`/probe.wasm exports no function ""`}},
		{name: "missing", command: []string{"/missing.wasm"}, want: []string{"/missing.wasm does not exist", "check the image's entry point"}},
		{name: "dangling link", command: []string{"/dangling.wasm"}, want: []string{"/dangling.wasm does not exist"}},
		{name: "not on PATH", command: []string{"missing.wasm"}, want: []string{"missing.wasm", "not found in $PATH"}},
		{name: "below a file", command: []string{"/probe.wasm/app.wasm"}, want: []string{"/probe.wasm/app.wasm", "not a directory"}},
		{name: "folder", command: []string{"/folder.wasm"}, want: []string{"/folder.wasm is not a file", "directory"}},
		{name: "fifo", options: volume(fifo, "/fifo.wasm"), command: []string{"/fifo.wasm"}, want: []string{"/fifo.wasm is not a file", "fifo"}},
		{name: "device", options: volume("/dev/zero", "/zero.wasm"), command: []string{"/zero.wasm"}, want: []string{"/zero.wasm is not a file", "device"}},
		{name: "missing volume", options: volume("/nonexistent/source", "/data"), command: []string{"/probe.wasm"}, want: []string{"/data", "/nonexistent/source", "no such file"}},
		{name: "empty image", image: emptyImage, command: []string{"/app.wasm"}, want: []string{"/app.wasm does not exist"}},
		{name: "no command", image: emptyImage, want: []string{"args must not be empty"}},
		{name: "too large", config: `max_module_size = "1KiB"`, command: []string{"/probe.wasm"}, want: []string{"/probe.wasm has", "the limit is 1024", "raise max_module_size in", "config.toml"}},
		{name: "slow to compile", config: `compile_timeout = "100ms"`, command: []string{"/big.wasm"}, want: []string{"/big.wasm takes longer than 100ms", "raise compile_timeout in", "config.toml"}},
		{name: "hungry to compile", config: `compile_memory = "32MiB"`, command: []string{"/big.wasm"}, want: []string{"/big.wasm needs more than 33554432 bytes", "raise compile_memory in", "config.toml"}},
		{name: "unknown key", config: `max_modul_size = "1MiB"`, command: []string{"/probe.wasm"}, want: []string{"config.toml", "line 1", `unknown key "max_modul_size"`}},
	}
}

// run runs the container in the foreground with a compile cache of its own, which it returns.
func (in badInput) run(t *testing.T, node *testnode.Node) (result testnode.Result, cache string) {
	t.Helper()
	cache, file := newCache(t, in.config)
	image := in.image
	if image == "" {
		image = badImage
	}
	args := append([]string{"run", "--rm", "--runtime", runtime, "--runtime-config-path", file}, in.options...)
	args = append(args, image, "bad")
	return node.Ctr(t, append(args, in.command...)...), cache
}

func TestBadInput(t *testing.T) {
	files := badFiles(t)
	empty := testguest.Image(t, emptyImage, testguest.ImageOpts{})
	inputs := badInputs(t)
	nodes.EachVersion(t, func(t *testing.T, node *testnode.Node) {
		node.Import(t, files)
		node.Import(t, empty)
		for _, in := range inputs {
			t.Run(in.name, func(t *testing.T) {
				node.NoLeaks(t)
				result, cache := in.run(t, node)
				if result.Code == 0 || result.Stdout != "" {
					t.Errorf("ctr run ended with %d and printed %q", result.Code, result.Stdout)
				}
				wantAll(t, result.Stderr, in.want)
				noTask(t, node)
				noPreparer(t)
				emptyCache(t, cache)
			})
		}
	})
}

// The stock shim handles a file that is not Wasm and does not look like it.
func TestNativeTextIsTheStockShimsToRefuse(t *testing.T) {
	files := badFiles(t)
	nodes.EachVersion(t, func(t *testing.T, node *testnode.Node) {
		node.Import(t, files)
		node.NoLeaks(t)
		for _, command := range []string{"/script", "/missing", "/folder.wasm/.."} {
			theirs := node.Ctr(t, "run", "--rm", "--runtime", stockShim, badImage, "bad", command)
			ours := node.Ctr(t, "run", "--rm", "--runtime", runtime, badImage, "bad", command)
			if ours != theirs || ours.Code == 0 {
				t.Errorf("%s: got %+v, the stock shim alone answers %+v", command, ours, theirs)
			}
			noTask(t, node)
		}
	})
}

func wantAll(t *testing.T, text string, parts []string) {
	t.Helper()
	for _, part := range parts {
		if !strings.Contains(text, part) {
			t.Errorf("got %q, want something with %q", text, part)
		}
	}
}

func noTask(t *testing.T, node *testnode.Node) {
	t.Helper()
	for _, what := range []string{"tasks", "containers"} {
		if left := node.Ctr(t, what, "list", "--quiet"); left.Code != 0 || left.Stdout != "" {
			t.Errorf("%s left: %+v", what, left)
		}
	}
}

// emptyCache fails if the cache holds a file although nothing was compiled into it. Records of refused modules
// are allowed.
func emptyCache(t *testing.T, dir string) {
	t.Helper()
	var left []string
	// A shim that is ending may still be checking the cache for leftovers of other processes.
	if !eventually(func() bool {
		left = nil
		err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
			refusal := filepath.Base(filepath.Dir(path)) == "refused" && filepath.Ext(path) == ""
			if err == nil && entry.Type().IsRegular() && !strings.HasSuffix(path, ".cwasm") && !strings.HasSuffix(path, ".json") && !refusal {
				left = append(left, path)
			}
			return err
		})
		if err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
		return len(left) == 0
	}) {
		t.Errorf("left in the cache: %q", left)
	}
}

// eventually polls until done returns true. It returns false after taskPatience.
func eventually(done func() bool) bool {
	deadline := time.Now().Add(taskPatience)
	for !done() {
		if time.Now().After(deadline) {
			return false
		}
		time.Sleep(10 * time.Millisecond)
	}
	return true
}

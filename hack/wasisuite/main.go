// Command wasisuite runs the tests of WebAssembly/wasi-testsuite for WASI preview 1 on package preview1. Its
// argument is a checkout of that repository's branch prod/testsuite-base, which has the compiled tests:
//
//	git clone --depth 1 -b prod/testsuite-base https://github.com/WebAssembly/wasi-testsuite /tmp/wasi-testsuite
//	go run ./hack/wasisuite /tmp/wasi-testsuite
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	wasmtime "github.com/bytecodealliance/wasmtime-go/v44"

	"github.com/wasmshim/containerd-shim-wasm/worker/engine"
	"github.com/wasmshim/containerd-shim-wasm/worker/preview1"
)

// expectation is the file beside a test that says how it is run, and how it ends.
type expectation struct {
	Args   []string          `json:"args"`
	Env    map[string]string `json:"env"`
	Root   string            `json:"root"`
	Exit   int               `json:"exit_code"`
	Stdout string            `json:"stdout"`
}

// intended are the tests that fail on purpose, with the reason.
var intended = map[string]string{
	"symlink_create": "it wants an absolute link refused, which containers have",
}

// single is the variable that makes this command run one test, with its own standard streams.
const single = "WASISUITE_TEST"

func main() {
	log.SetFlags(0)
	if test := os.Getenv(single); test != "" {
		code, err := run(test)
		if err != nil {
			log.Fatal(err)
		}
		os.Exit(code)
	}
	if len(os.Args) != 2 {
		log.Fatal("usage: go run ./hack/wasisuite CHECKOUT")
	}
	tests, err := filepath.Glob(filepath.Join(os.Args[1], "tests", "*", "testsuite", "wasm32-wasip1", "*.wasm"))
	if err != nil || len(tests) == 0 {
		log.Fatalf("%s has no tests in tests/*/testsuite/wasm32-wasip1", os.Args[1])
	}
	failed := 0
	for _, test := range tests {
		name := strings.TrimSuffix(filepath.Base(test), ".wasm")
		err := judge(test)
		reason, known := intended[name]
		switch {
		case err != nil && known:
			fmt.Printf("differs on purpose: %s: %s\n", name, reason)
		case err != nil:
			fmt.Printf("FAIL %s: %v\n", name, err)
			failed++
		case known:
			fmt.Printf("FAIL %s: it passes, so it is no difference\n", name)
			failed++
		}
	}
	fmt.Printf("%d tests, %d fail, %d differ on purpose\n", len(tests), failed, len(intended))
	if failed > 0 {
		os.Exit(1)
	}
}

// judge runs a test in a process of its own and compares its end with the expectation.
func judge(test string) error {
	want, err := expected(test)
	if err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	var output, errors strings.Builder
	command := exec.Command(self)
	command.Env = append(os.Environ(), single+"="+test)
	command.Stdout, command.Stderr = &output, &errors
	if err := command.Run(); err != nil && command.ProcessState == nil {
		return err
	}
	if code := command.ProcessState.ExitCode(); code != want.Exit {
		return fmt.Errorf("exit code %d, want %d: %s", code, want.Exit, errors.String())
	}
	if want.Stdout != "" && output.String() != want.Stdout {
		return fmt.Errorf("standard output %q, want %q", output.String(), want.Stdout)
	}
	return nil
}

func expected(test string) (expectation, error) {
	var want expectation
	text, err := os.ReadFile(strings.TrimSuffix(test, ".wasm") + ".json")
	if errors.Is(err, fs.ErrNotExist) {
		return want, nil
	}
	if err != nil {
		return want, err
	}
	return want, json.Unmarshal(text, &want)
}

// run runs a test on a copy of its root, and returns its exit code.
func run(test string) (int, error) {
	want, err := expected(test)
	if err != nil {
		return 0, err
	}
	world := preview1.World{
		Args:    append([]string{filepath.Base(test)}, want.Args...),
		Streams: [3]*os.File{os.Stdin, os.Stdout, os.Stderr},
	}
	for name, value := range want.Env {
		world.Env = append(world.Env, name+"="+value)
	}
	if want.Root != "" {
		root, err := os.MkdirTemp("", "wasisuite-")
		if err != nil {
			return 0, err
		}
		defer os.RemoveAll(root)
		if err := os.CopyFS(root, os.DirFS(filepath.Join(filepath.Dir(test), want.Root))); err != nil {
			return 0, err
		}
		world.Roots = []preview1.Root{{Path: root, Name: "/"}}
	}
	return start(test, world)
}

func start(test string, world preview1.World) (int, error) {
	e := engine.New()
	module, err := wasmtime.NewModuleFromFile(e, test)
	if err != nil {
		return 0, err
	}
	guest, err := preview1.New(world)
	if err != nil {
		return 0, err
	}
	linker := wasmtime.NewLinker(e)
	if err := guest.Define(linker); err != nil {
		return 0, err
	}
	store := wasmtime.NewStore(e)
	instance, err := linker.Instantiate(store, module)
	if err != nil {
		return 0, err
	}
	_, err = instance.GetFunc(store, "_start").Call(store)
	if status, exited := guest.Exited(); exited {
		return status, nil
	}
	return 0, err
}

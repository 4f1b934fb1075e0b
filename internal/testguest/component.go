package testguest

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/wasmshim/containerd-shim-wasm/internal/repo"
)

// texts are the guests that are written as the text of a component; each file says what it does.
// hack/component translates them.
var texts = map[string]string{
	"component-functions":  "component-functions.wat",
	"component-error":      "component-error.wat",
	"component-exit":       "component-exit.wat",
	"component-hostimport": "component-hostimport.wat",
	"component-http":       "component-http.wat",
	"component-sockets":    "component-sockets.wat",
}

// What makes components of modules. The adapter is of the release of wasmtime that runs them; wasm-tools must
// be newer than 1.230, which refuses the modules of Go's compiler because they import a function twice.
var (
	// wasm-tools, compiled to a module for WASI preview 1 itself.
	wasmTools = archived{
		url:    "@bytecodealliance/jco-transpile@0.15.0",
		sha256: "8386c1fe1919f57747626ac9622f7505efd560394ee0b43544907ff963fb6aff",
		member: "package/vendor/wasm-tools.core.wasm",
	}
	// WASI preview 1 for commands, by WASI 0.2.6.
	commandAdapter = archived{
		url:    "wasi-preview1-component-adapter-provider@44.0.3",
		sha256: "d2abf4675594ed00f36d83af1210c45fdeaa79ad3c84753e4bcf251b3db36531",
		member: "wasi-preview1-component-adapter-provider-44.0.3/artefacts/wasi_snapshot_preview1.command.wasm",
	}
)

// Component returns the absolute path of a component that does what the command at path does, a core
// module for WASI preview 1: it exports wasi:cli/run and imports what of WASI 0.2 the command uses.
// Of exit codes it has only 0 and 1, for all that are not 0: the adapter calls wasi:cli/exit's exit. The
// same module gives the same file, made once. The first one fetches wasm-tools and the adapter, 2.4 MB, from the
// registries of npm and Rust and keeps them below .cache/tools.
func Component(path string) (string, error) {
	core, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	file := strings.TrimSuffix(filepath.Base(path), ".wasm") + "-component.wasm"
	key := digest([]byte(wasmTools.sha256), []byte(commandAdapter.sha256), core)
	made, err := once("guests", file, key, func(output string) error {
		tools, err := wasmTools.file()
		if err != nil {
			return err
		}
		adapter, err := commandAdapter.file()
		if err != nil {
			return err
		}
		source, err := filepath.Abs(path)
		if err != nil {
			return err
		}
		return makeComponent("new", "-tools", tools, "-adapter", adapter, source, output)
	})
	if err != nil {
		return "", fmt.Errorf("making a component of %s: %w", path, err)
	}
	return made, nil
}

// translate builds the guest that is written in a file of src.
func translate(name, file string) (string, error) {
	source, err := sources.ReadFile("src/" + file)
	if err != nil {
		return "", err
	}
	return once("guests", name+".wasm", digest(source), func(output string) error {
		input := output + ".wat"
		if err := os.WriteFile(input, source, 0o644); err != nil {
			return err
		}
		defer os.Remove(input)
		return makeComponent("text", input, output)
	})
}

// makeComponent runs hack/component, for this machine whatever the caller is built for.
func makeComponent(args ...string) error {
	root, err := repo.Root()
	if err != nil {
		return err
	}
	command := exec.Command("go", append([]string{"run", "./hack/component"}, args...)...)
	command.Dir = root
	command.Env = append(os.Environ(), "CGO_ENABLED=1", "GOOS=", "GOARCH=")
	if text, err := command.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s", strings.Join(command.Args, " "), err, text)
	}
	return nil
}

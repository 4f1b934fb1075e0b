package testguest

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/wasmshim/containerd-shim-wasm/internal/repo"
)

// texts are the guests that are written as the text of a module or of a component; a comment in each file describes
// the guest. hack/component translates them.
var texts = map[string]string{
	"component-functions":  "component-functions.wat",
	"component-error":      "component-error.wat",
	"component-exit":       "component-exit.wat",
	"component-hostimport": "component-hostimport.wat",
	"component-http":       "component-http.wat",
	"component-sockets":    "component-sockets.wat",
	"default-export":       "default-export.wat",
	"exceptions":           "exceptions.wat",
}

// The tools that make components of modules. wasm-tools must be newer than 1.230: that one refuses the modules of
// Go's compiler because they import a function twice.
var (
	// wasm-tools, compiled to a module for WASI preview 1 itself.
	wasmTools = packaged{
		name: "@bytecodealliance/jco-transpile", version: "0.15.0",
		sha256: "8386c1fe1919f57747626ac9622f7505efd560394ee0b43544907ff963fb6aff",
		member: "package/vendor/wasm-tools.core.wasm",
	}
	// The adapter of WASI preview 1 for commands, to WASI 0.2.12.
	commandAdapter = packaged{
		name: "@bytecodealliance/jco", version: "1.35.0",
		sha256: "893e80e993a2cb3735e195a0c2dc3ab7d683877a813bb024a27499ee86e12b13",
		member: "package/lib/wasi_snapshot_preview1.command.wasm",
	}
)

// Component returns the absolute path of a component that does the same as the command at path, a core module for
// WASI preview 1. The component exports wasi:cli/run and imports the parts of WASI 0.2 that the command uses. Its
// exit code is 0 or 1, for every code that is not 0: the adapter calls wasi:cli/exit's exit. The component of a
// module is made once. The first call makes npm fetch wasm-tools and the adapter, 2.4 MB, which are kept below
// .cache/tools.
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
		return "", fmt.Errorf("make a component of %s: %w", path, err)
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

// makeComponent runs hack/component, built for this machine even if the caller is built for another.
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

// Command component makes the WebAssembly components that tests run:
//
//	go run ./hack/component text SOURCE.wat OUTPUT
//	go run ./hack/component new -tools wasm-tools.core.wasm -adapter ADAPTER CORE OUTPUT
//
// The first form translates a component's text. The second form makes a component of a core module for
// WASI preview 1, as "wasm-tools component new" does. wasm-tools, compiled to such a module itself,
// does the work. This is a program of its own because it needs wasmtime, and guests are built without
// wasmtime.
package main

import (
	"flag"
	"fmt"
	"os"

	"github.com/bytecodealliance/wasmtime-go/v44"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "component:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) == 0 {
		return fmt.Errorf("say text or new")
	}
	flags := flag.NewFlagSet(args[0], flag.ContinueOnError)
	tools := flags.String("tools", "", "wasm-tools as a core `MODULE`; what it is compiled to is kept beside it")
	adapter := flags.String("adapter", "", "core `MODULE` that implements wasi_snapshot_preview1 by WASI 0.2")
	if err := flags.Parse(args[1:]); err != nil {
		return err
	}
	if flags.NArg() != 2 {
		return fmt.Errorf("give a source and an output, got %q", flags.Args())
	}
	source, err := os.ReadFile(flags.Arg(0))
	if err != nil {
		return err
	}
	var component []byte
	switch args[0] {
	case "text":
		component, err = wasmtime.Wat2Wasm(string(source))
	case "new":
		component, err = componentNew(*tools, *adapter, source)
	default:
		return fmt.Errorf("%q is neither text nor new", args[0])
	}
	if err != nil {
		return fmt.Errorf("make a component of %s: %w", flags.Arg(0), err)
	}
	return os.WriteFile(flags.Arg(1), component, 0o755)
}

// Command javascript runs a script in JavaScript: goja, an interpreter written in Go, compiled to Wasm. A
// script has no access to anything but its arguments, the environment, and the container's files:
//
//	console.log(…)          a line on standard output; console.error on standard error
//	args                    the arguments after the script's name
//	env                     the environment
//	readFile(path)          the text of a file
//	writeFile(path, text)   makes a file
//	exit(code)              ends the script
package main

import (
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/dop251/goja"
)

func main() {
	if len(os.Args) < 2 {
		fmt.Fprintln(os.Stderr, "usage: javascript SCRIPT [ARG…]")
		os.Exit(2)
	}
	if err := run(os.Args[1], os.Args[2:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(path string, args []string) error {
	script, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	vm := goja.New()
	for name, value := range map[string]any{
		"console":   map[string]any{"log": printer(os.Stdout), "error": printer(os.Stderr)},
		"args":      args,
		"env":       environment(),
		"readFile":  readFile,
		"writeFile": func(path, text string) error { return os.WriteFile(path, []byte(text), 0o644) },
		"exit":      os.Exit,
	} {
		if err := vm.Set(name, value); err != nil {
			return err
		}
	}
	_, err = vm.RunScript(path, string(script))
	return err
}

// printer writes its arguments on one line, as in a browser's console.
func printer(w io.Writer) func(goja.FunctionCall) goja.Value {
	return func(call goja.FunctionCall) goja.Value {
		words := make([]string, len(call.Arguments))
		for i, argument := range call.Arguments {
			words[i] = argument.String()
		}
		fmt.Fprintln(w, strings.Join(words, " "))
		return goja.Undefined()
	}
}

func environment() map[string]string {
	variables := map[string]string{}
	for _, pair := range os.Environ() {
		name, value, _ := strings.Cut(pair, "=")
		variables[name] = value
	}
	return variables
}

func readFile(path string) (string, error) {
	text, err := os.ReadFile(path)
	return string(text), err
}

//go:debug containermaxprocs=0
//go:debug updatemaxprocs=0

// Command containerd-shim-wasm-v1 is the containerd shim that runs WebAssembly.
// containerd calls its verbs start and delete; people call install, uninstall,
// image, cache, artifacts, doctor and --help.
//
// The two settings above stop the Go runtime from reading the limits of our own cgroup at each start and
// every second after. That would be wasted work: start and delete end at once, and the daemon gets the number
// of processors in its environment.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"

	"github.com/wasmshim/containerd-shim-wasm/install"
	"github.com/wasmshim/containerd-shim-wasm/internal/hide"
	"github.com/wasmshim/containerd-shim-wasm/internal/text"
	"github.com/wasmshim/containerd-shim-wasm/shim"
)

// version is set by make build.
var version = "devel"

func main() {
	// Hide the process before a container can see a child of ours.
	if err := hide.Process(); err != nil {
		os.Exit(fail(err))
	}
	os.Exit(run(os.Args[1:]))
}

const usage = `containerd-shim-wasm-v1 runs WebAssembly containers under containerd.

For people:
  containerd-shim-wasm-v1 install [--print]    install on this node (see install --help)
  containerd-shim-wasm-v1 uninstall            undo that
  containerd-shim-wasm-v1 image VERB           pack and inspect images (see image --help)
  containerd-shim-wasm-v1 cache VERB           list, remove and make compiled modules (see cache --help)
  containerd-shim-wasm-v1 artifacts [POD]      list what containers read from S3 and write to it
  containerd-shim-wasm-v1 doctor               check this node, and say how to mend it
  containerd-shim-wasm-v1 -v                   print the version
  ctr run --rm --runtime io.containerd.wasm.v1 IMAGE NAME
                                               run an image whose entry point is a .wasm file

For containerd: start, delete, -info, and the flags
  -namespace NS -id ID -address SOCKET -publish-binary FILE -bundle DIR -debug
`

func run(args []string) int {
	if len(args) > 0 {
		switch args[0] {
		case "install":
			return install.Command(context.Background(), args[1:], os.Stdout, os.Stderr)
		case "uninstall":
			return install.UninstallCommand(context.Background(), args[1:], os.Stdout, os.Stderr)
		case "image", "doctor":
			return fail(runClient(args))
		case "artifacts":
			return fail(listArtifacts(args[1:], os.Stdout))
		case "cache":
			return fail(runCache(args))
		case "help":
			fmt.Print(usage)
			return 0
		}
	}
	return fail(runShim(args))
}

// fail returns the exit status for err, which it prints.
func fail(err error) int {
	if err == nil {
		return 0
	}
	fmt.Fprintf(os.Stderr, "containerd-shim-wasm-v1: %s\n", text.Printable(strings.ReplaceAll(err.Error(), "\n", "; ")))
	return 1
}

// runShim runs the command line of containerd's shims (containerd's core/runtime/v2/README.md).
func runShim(args []string) error {
	var flags shim.Flags
	var printVersion, printInfo bool
	set := flag.NewFlagSet("containerd-shim-wasm-v1", flag.ContinueOnError)
	set.SetOutput(io.Discard)
	set.StringVar(&flags.Namespace, "namespace", "", "")
	set.StringVar(&flags.ID, "id", "", "")
	set.StringVar(&flags.Address, "address", "", "")
	set.StringVar(&flags.PublishBinary, "publish-binary", "", "")
	set.StringVar(&flags.Bundle, "bundle", "", "")
	set.BoolVar(&flags.Debug, "debug", false, "")
	set.BoolVar(&printVersion, "v", false, "")
	set.BoolVar(&printInfo, "info", false, "")
	set.String("socket", "", "")
	err := set.Parse(args)
	switch {
	case err == flag.ErrHelp:
		fmt.Print(usage)
		return nil
	case err != nil:
		return fmt.Errorf("%w; see --help", err)
	case printVersion:
		fmt.Printf("containerd-shim-wasm-v1:\n  Version:  %s\n  Go version: %s\n", version, runtime.Version())
		return nil
	case printInfo:
		return shim.Info(version, os.Stdin, os.Stdout)
	}
	return runVerb(set.Arg(0), flags)
}

const deleteVerb = "delete"

func runVerb(verb string, flags shim.Flags) error {
	if verb == "" {
		fmt.Print(usage)
		return nil
	}
	if flags.Namespace == "" || flags.ID == "" {
		return fmt.Errorf("verb %q is for containerd, which gives -namespace and -id; see --help", verb)
	}
	// An id becomes part of paths.
	if strings.ContainsAny(flags.ID, "/\x00") || flags.ID == "." || flags.ID == ".." {
		return fmt.Errorf("container id %q is not valid", flags.ID)
	}
	switch verb {
	case "start":
		return shim.Start(flags, os.Stdin, os.Stdout)
	case deleteVerb:
		return shim.Delete(flags, os.Stdout)
	case shim.ServeVerb:
		return shim.Serve(flags, programs, executor.place)
	}
	return fmt.Errorf("unknown verb %q; see --help", verb)
}

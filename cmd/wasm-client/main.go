// Command wasm-client does the work of containerd-shim-wasm-v1 that needs containerd's API or a registry. The
// libraries for that would cost each start of a container some milliseconds if the shim contained them. The
// shim embeds this program and runs it; users reach its verbs through the shim.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"

	"github.com/wasmshim/containerd-shim-wasm/internal/hide"
	"github.com/wasmshim/containerd-shim-wasm/internal/text"
	"github.com/wasmshim/containerd-shim-wasm/oci/ask"
)

// verb is one command of the program. It gets the arguments after its name. main prints its error, in one
// line, and exits with status 1; flag.ErrHelp exits with 0.
type verb struct {
	about string // in one line
	run   func(ctx context.Context, args []string, stdio stdio) error
}

// stdio is what a verb reads and writes.
type stdio struct {
	in       io.Reader
	out, err io.Writer
}

// verbs are the verbs for users, by their words: "doctor", or "image pack". The shim passes them on.
var verbs = map[string]verb{
	"doctor":        {"check this node, and say how to mend it", checkNode},
	"cache ls":      {"list compiled modules", cacheList},
	"cache prune":   {"remove compiled modules that are of no use any more", cachePrune},
	"cache warm":    {"compile the modules of an image ahead of time", cacheWarm},
	"image adapt":   {"give an artifact in containerd an image's config, for ctr", imageAdapt},
	"image inspect": {"say what of an image runs and why, or why nothing does", imageInspect},
	"image pack":    {"make an image or artifact of WebAssembly, in any format", imagePack},
}

// private are the verbs that only the shim uses (package ask).
var private = map[string]verb{
	ask.FindVerb:  {"print the Wasm layers of a container's or an image's manifest as JSON", find},
	ask.KeepVerb:  {"give a compiled module to the image of a container", keep},
	ask.TraceVerb: {"tell an OpenTelemetry collector what was read and written of a container's artifacts", traceArtifacts},
	ask.ViewVerb:  {"print how to mount the files of an image, as JSON", view},
	ask.WatchVerb: {"print the names of images that are there, and as they come", watch},
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	// A second signal kills a verb that ignores the first.
	context.AfterFunc(ctx, stop)
	err := hide.Process()
	if err == nil {
		err = run(ctx, os.Args[1:], stdio{os.Stdin, os.Stdout, os.Stderr})
	}
	stop()
	if err != nil {
		tell(os.Stderr, err)
		os.Exit(1)
	}
}

// maxError is the limit of an error's text, in bytes: images choose the names in it, and the shim reads it.
const maxError = 8 << 10

// tell prints an error in one line.
func tell(w io.Writer, err error) {
	fmt.Fprintln(w, text.Printable(text.Short(strings.ReplaceAll(strings.TrimSpace(err.Error()), "\n", "; "), maxError)))
}

func run(ctx context.Context, args []string, stdio stdio) error {
	if len(args) == 0 || slices.Contains([]string{"-h", "-help", "--help", "help"}, args[0]) {
		usage(stdio.out, "")
		return nil
	}
	name, rest := args[0], args[1:]
	if isGroup(name) {
		if len(rest) == 0 || slices.Contains([]string{"-h", "-help", "--help", "help"}, rest[0]) {
			usage(stdio.out, name+" ")
			return nil
		}
		name, rest = name+" "+rest[0], rest[1:]
	}
	v, ok := verbs[name]
	if !ok {
		v, ok = private[name]
	}
	if !ok {
		return fmt.Errorf("unknown verb %q; see --help", name)
	}
	err := v.run(ctx, rest, stdio)
	if errors.Is(err, flag.ErrHelp) {
		return nil
	}
	return err
}

// isGroup reports whether there are verbs of two words that start with this one.
func isGroup(word string) bool {
	for name := range verbs {
		if strings.HasPrefix(name, word+" ") {
			return true
		}
	}
	return false
}

func usage(w io.Writer, group string) {
	fmt.Fprintf(w, "usage: %s %sVERB [FLAG]... [ARGUMENT]...; VERB -h says more\n", programOf(group), group)
	list(w, verbs, group)
	if group == "" {
		fmt.Fprintln(w, "for containerd-shim-wasm-v1 itself:")
		list(w, private, group)
	}
}

func list(w io.Writer, verbs map[string]verb, group string) {
	for _, name := range slices.Sorted(maps.Keys(verbs)) {
		if strings.HasPrefix(name, group) {
			fmt.Fprintf(w, "  %-16s %s\n", strings.TrimPrefix(name, group), verbs[name].about)
		}
	}
}

// programOf returns the program of a verb: users run the shim, the shim runs wasm-client.
func programOf(verb string) string {
	switch verb {
	case "", ask.FindVerb, ask.KeepVerb, ask.TraceVerb, ask.ViewVerb, ask.WatchVerb:
		return "wasm-client"
	}
	return "containerd-shim-wasm-v1"
}

// newFlags returns the flags of a verb. -h prints the usage line and the flags to the verb's output.
func newFlags(name, usage string, stdio stdio) *flag.FlagSet {
	set := flag.NewFlagSet(name, flag.ContinueOnError)
	set.SetOutput(stdio.out)
	set.Usage = func() {
		fmt.Fprintf(stdio.out, "usage: %s %s %s\n", programOf(name), name, usage)
		set.PrintDefaults()
	}
	return set
}

// parse reads a verb's flags and allows between least and most arguments after them. It prints no errors:
// main prints them once.
func parse(set *flag.FlagSet, args []string, least, most int) error {
	out := set.Output()
	set.SetOutput(io.Discard)
	show := set.Usage
	set.Usage = func() {}
	err := set.Parse(args)
	set.SetOutput(out)
	set.Usage = show
	switch {
	case errors.Is(err, flag.ErrHelp):
		show()
		return err
	case err == nil && set.NArg() < least:
		err = errors.New("an argument is missing")
	case err == nil && set.NArg() > most:
		err = fmt.Errorf("unexpected argument %q", set.Arg(most))
	}
	if err != nil {
		return fmt.Errorf("%s: %w; see %s -h", set.Name(), err, set.Name())
	}
	return nil
}

package install

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
)

// Command runs "install ARGS" and returns the exit code: 0, 1 for a failure, 2 for
// wrong arguments.
func Command(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	var printOnly bool
	o, err := parseFlags("install", args, stderr, func(fs *flag.FlagSet, o *Options) {
		fs.StringVar(&o.ContainerdVersion, "containerd-version", "", "containerd's `VERSION`, instead of asking the binary")
		fs.BoolVar(&printOnly, "print", false, "print the runtime entry for containerd's configuration, and write nothing")
	})
	if err != nil {
		return flagCode(err)
	}
	if printOnly {
		entry, err := Entry(ctx, o)
		if err != nil {
			return fail(err, stdout, stderr)
		}
		fmt.Fprint(stdout, entry)
		return 0
	}
	report, err := Install(ctx, o)
	return finish(report, err, o, stdout, stderr)
}

// UninstallCommand runs "uninstall ARGS" and returns the exit code as Command does.
func UninstallCommand(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	o, err := parseFlags("uninstall", args, stderr, func(fs *flag.FlagSet, o *Options) {
		fs.BoolVar(&o.Force, "force", false, "remove a block that was edited by hand, and a binary that still runs containers")
	})
	if err != nil {
		return flagCode(err)
	}
	report, err := Uninstall(ctx, o)
	return finish(report, err, o, stdout, stderr)
}

func parseFlags(verb string, args []string, stderr io.Writer, more func(*flag.FlagSet, *Options)) (Options, error) {
	o := Options{}.withDefaults()
	fs := flag.NewFlagSet(verb, flag.ContinueOnError)
	fs.SetOutput(stderr)
	fs.Usage = func() {
		fmt.Fprintf(stderr, "usage: %s %s [flags]\n\nflags:\n", BinaryName, verb)
		fs.PrintDefaults()
	}
	fs.StringVar(&o.Config, "config", o.Config, "containerd's configuration `FILE`")
	fs.StringVar(&o.BinDir, "bin-dir", o.BinDir, "`FOLDER` for the binary, on containerd's PATH")
	fs.StringVar(&o.Containerd, "containerd", "", "containerd `BINARY` that checks the result (default: the one on PATH)")
	fs.BoolVar(&o.DryRun, "dry-run", false, "say what would be done, and write nothing")
	more(fs, &o)
	if err := fs.Parse(args); err != nil {
		return o, err
	}
	if fs.NArg() > 0 {
		err := fmt.Errorf("%s takes no argument %q", verb, fs.Arg(0))
		fmt.Fprintln(stderr, err)
		return o, err
	}
	return o, nil
}

func flagCode(err error) int {
	if errors.Is(err, flag.ErrHelp) {
		return 0
	}
	return 2
}

// finish prints a report, also one that an error cut short.
func finish(r Report, err error, o Options, stdout, stderr io.Writer) int {
	for _, line := range r.Lines {
		fmt.Fprintln(stdout, line)
	}
	if err != nil {
		return fail(err, stdout, stderr)
	}
	if r.Restart != "" && !o.DryRun {
		fmt.Fprintf(stdout, "containerd must be restarted to see it (running containers stay): %s\n", r.Restart)
	}
	return 0
}

func fail(err error, stdout, stderr io.Writer) int {
	fmt.Fprintf(stderr, "%s: %v\n", BinaryName, err)
	if manual := (*ManualError)(nil); errors.As(err, &manual) && manual.Entry != "" {
		fmt.Fprintf(stdout, "\n%s", manual.Entry)
	}
	return 1
}

package main

import (
	"flag"
	"fmt"
	"strings"
)

// flagsFirst moves the flags of a command line before its other arguments, because package flag requires that
// and people name the file first. Arguments after -- stay unchanged.
func flagsFirst(set *flag.FlagSet, args []string) []string {
	var flags, rest []string
	for i := 0; i < len(args); i++ {
		arg := args[i]
		if arg == "--" {
			rest = append(rest, args[i+1:]...)
			break
		}
		if len(arg) < 2 || arg[0] != '-' {
			rest = append(rest, arg)
			continue
		}
		flags = append(flags, arg)
		if takesNext(set, arg) && i+1 < len(args) {
			i++
			flags = append(flags, args[i])
		}
	}
	return append(append(flags, "--"), rest...)
}

// takesNext reports whether the argument after this one is the flag's value.
func takesNext(set *flag.FlagSet, arg string) bool {
	name := strings.TrimLeft(arg, "-")
	if strings.Contains(name, "=") {
		return false
	}
	f := set.Lookup(name)
	if f == nil {
		return false
	}
	boolean, ok := f.Value.(interface{ IsBoolFlag() bool })
	return !ok || !boolean.IsBoolFlag()
}

// words is a flag that may be given several times.
type words []string

func (w *words) String() string { return strings.Join(*w, " ") }

func (w *words) Set(value string) error {
	*w = append(*w, value)
	return nil
}

// pairs is a flag of the form KEY=VALUE that may be given several times.
type pairs map[string]string

func (p pairs) String() string { return "" }

func (p pairs) Set(value string) error {
	key, value, ok := strings.Cut(value, "=")
	if !ok || key == "" {
		return fmt.Errorf("it is not of the form KEY=VALUE")
	}
	p[key] = value
	return nil
}

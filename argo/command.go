package argo

import (
	"errors"
	"fmt"
	"log/slog"
	"path"
	"strconv"
	"strings"
	"syscall"
)

// Command is a parsed command line of argoexec's emissary.
type Command struct {
	// File is the program to run, Args its arguments without its name.
	File string
	Args []string
	// Level is the least severe level to log, JSON the format of the log.
	Level slog.Level
	JSON  bool
}

// Parse reads a container's whole command line. If it is not one of argoexec's emissary, ok
// is false and err nil. An error names a part that a real argoexec would not have
// understood either.
//
// Flags are those that Argo 3.5 to 4.1 write: --loglevel, --log-format and
// --gloglevel, as two words or with "=". As in argoexec they may stand anywhere
// before "--".
func Parse(args []string) (command Command, ok bool, err error) {
	rest, ok := subcommand(args, "emissary")
	if !ok {
		return Command{}, false, nil
	}
	operands, err := command.parse(rest)
	if err != nil {
		return Command{}, true, fmt.Errorf("argoexec emissary: %w", err)
	}
	if len(operands) == 0 || operands[0] == "" {
		return Command{}, true, errors.New("argoexec emissary: no command to run is given")
	}
	command.File, command.Args = operands[0], operands[1:]
	return command, true, nil
}

// Unwrap returns the command line that the emissary is to run, if a container's command line is wrapped
// in it, or else the same command line. The errors are those of Parse.
func Unwrap(args []string) (guest []string, wrapped bool, err error) {
	command, wrapped, err := Parse(args)
	if err != nil || !wrapped {
		return args, wrapped, err
	}
	return append([]string{command.File}, command.Args...), true, nil
}

// Kill is a parsed command line of argoexec's kill.
type Kill struct {
	Signal syscall.Signal
	PID    int
}

// String returns the line that argoexec prints before it sends the signal.
func (k Kill) String() string {
	return fmt.Sprintf("killing %d with %v", k.PID, k.Signal)
}

// ParseKill reads the whole command line of an exec. If it is not one of argoexec's kill, ok
// is false and err nil.
func ParseKill(args []string) (kill Kill, ok bool, err error) {
	rest, ok := subcommand(args, "kill")
	if !ok {
		return Kill{}, false, nil
	}
	operands, err := new(Command).parse(rest)
	if err != nil {
		return Kill{}, true, fmt.Errorf("argoexec kill: %w", err)
	}
	if len(operands) < 2 {
		return Kill{}, true, errors.New("argoexec kill: want a signal's number and a process id")
	}
	signal, err := strconv.Atoi(operands[0])
	if err != nil || signal < 0 || signal > maxSignal {
		return Kill{}, true, fmt.Errorf("argoexec kill: %q is no signal's number", operands[0])
	}
	pid, err := strconv.ParseInt(operands[1], 10, 32)
	if err != nil {
		return Kill{}, true, fmt.Errorf("argoexec kill: %q is no process id", operands[1])
	}
	return Kill{Signal: syscall.Signal(signal), PID: int(pid)}, true, nil
}

// maxSignal is Linux's highest signal number, see signal(7).
const maxSignal = 64

// subcommand reports whether args run the named command of a program called
// argoexec, and returns what is left without the name.
func subcommand(args []string, name string) ([]string, bool) {
	if len(args) == 0 || path.Base(args[0]) != "argoexec" {
		return nil, false
	}
	args = args[1:]
	for i := 0; i < len(args); i++ {
		switch {
		case args[i] == name:
			return append(args[:i:i], args[i+1:]...), true
		case args[i] == "--" || !strings.HasPrefix(args[i], "--"):
			return nil, false
		case !strings.Contains(args[i], "="):
			i++ // the flag's value
		}
	}
	return nil, false
}

// parse takes the flags in args and returns the operands.
func (c *Command) parse(args []string) ([]string, error) {
	var operands []string
	for i := 0; i < len(args); i++ {
		arg := args[i]
		if arg == "--" {
			return append(operands, args[i+1:]...), nil
		}
		if len(arg) < 2 || arg[0] != '-' {
			operands = append(operands, arg)
			continue
		}
		name, value, joined := strings.Cut(strings.TrimPrefix(arg, "--"), "=")
		if !strings.HasPrefix(arg, "--") || !known(name) {
			return nil, fmt.Errorf("unknown flag %q; put the command to run after \"--\"", arg)
		}
		if !joined {
			if i++; i == len(args) {
				return nil, fmt.Errorf("flag --%s needs a value", name)
			}
			value = args[i]
		}
		if err := c.set(name, value); err != nil {
			return nil, err
		}
	}
	return operands, nil
}

func known(flag string) bool {
	return flag == "loglevel" || flag == "log-format" || flag == "gloglevel"
}

// set takes one flag. Levels are logrus's in Argo 3, and four of them in Argo 4.
func (c *Command) set(flag, value string) error {
	switch flag {
	case "loglevel":
		level, ok := map[string]slog.Level{
			"trace": slog.LevelDebug, "debug": slog.LevelDebug, "info": slog.LevelInfo,
			"warn": slog.LevelWarn, "warning": slog.LevelWarn,
			"error": slog.LevelError, "fatal": slog.LevelError, "panic": slog.LevelError,
		}[strings.ToLower(value)]
		if !ok {
			return fmt.Errorf("flag --loglevel: unknown level %q", value)
		}
		c.Level = level
	case "log-format":
		if value != "text" && value != "json" {
			return fmt.Errorf("flag --log-format: want \"text\" or \"json\", not %q", value)
		}
		c.JSON = value == "json"
	case "gloglevel":
		if _, err := strconv.Atoi(value); err != nil {
			return fmt.Errorf("flag --gloglevel: %q is no number", value)
		}
	}
	return nil
}

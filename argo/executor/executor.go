package executor

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
)

// Exit codes of argoexec.
const (
	exitError = 64
	// exitPanic is that of a panic: argoexec ends by one when it cannot read its template.
	exitPanic = 2
)

// executor is one run of init or wait.
type executor struct {
	command
	log *slog.Logger
	// errors are those of the run. The first is the node's message.
	errors []error
}

// Main does what argoexec does with a command line, and returns its exit code. It executes the image's
// argoexec instead if it does not know the command, its environment, or its template.
func Main(args, env []string) int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	c, err := parse(args, env)
	if err == nil && c.verb != killVerb {
		err = outside()
	}
	if err != nil {
		return native(args, env, err)
	}
	e := &executor{command: c, log: newLog(c, os.Stderr)}
	switch c.verb {
	case killVerb:
		err = kill(c.signal, c.pid)
	case initVerb:
		err = e.init()
	case waitVerb:
		err = e.wait(ctx)
	}
	var unknown unknownError
	if errors.As(err, &unknown) {
		return native(args, env, unknown.error)
	}
	return e.end(err)
}

// unknownError says that the real argoexec is needed, and that nothing has been done yet.
type unknownError struct{ error }

// panicError is an error by which argoexec ends with a panic.
type panicError struct{ error }

// end leaves the messages of a run and returns its exit code.
func (e *executor) end(err error) int {
	if len(e.errors) > 0 {
		terminate(e.errors[0])
	}
	if err == nil {
		return 0
	}
	terminate(err)
	println(err.Error())
	if errors.As(err, &panicError{}) {
		return exitPanic
	}
	return exitError
}

func (e *executor) addError(err error) {
	e.log.Error("executor error", "error", err)
	e.errors = append(e.errors, err)
}

// firstError is the error that the run ends with.
func (e *executor) firstError() error {
	if len(e.errors) == 0 {
		return nil
	}
	return e.errors[0]
}

// terminate writes the container's termination message, which the kubelet reads. The file is this
// container's alone.
func terminate(err error) { terminateWith(err.Error()) }

func terminateWith(message string) {
	if err := os.WriteFile("/dev/termination-log", []byte(message), 0o600); err != nil {
		println("unable to write termination log: " + err.Error())
	}
}

// outside reports by its error why the container needs the real argoexec, as far as that can be seen
// only inside of it.
func outside() error {
	home := os.Getenv("HOME")
	if home == "" {
		home = "/"
	}
	config := filepath.Join(home, ".kube", "config")
	if _, err := os.Lstat(config); !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, syscall.ENOTDIR) {
		return errors.New(config + " exists, which only argoexec honours")
	}
	return nil
}

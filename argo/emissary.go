package argo

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/wasmshim/containerd-shim-wasm/internal/environ"
)

// VolumePath is where Argo mounts its volume in every container of a pod.
const VolumePath = "/var/run/argo"

// mainContainer is the name of the container whose outputs are saved.
const mainContainer = "main"

// pollInterval is the time between two looks at the files that others write in the volume.
// Upstream takes one or two seconds up to 4.0, and inotify in 4.1. Instances of inotify
// are few, and counted per user of the node.
const pollInterval = 100 * time.Millisecond

// Emissary is argoexec's part in one container.
type Emissary struct {
	Command
	// Env is the container's environment. Argo's settings are in it.
	Env []string
	// Volume is the directory, of this process, that holds what Argo mounts at
	// VolumePath. It must be writable.
	Volume string
	// Root is the container's root directory; all paths of templates lie below it.
	Root string
	// Dir is the container's working directory, seen from Root.
	Dir string
	// Stdout and Stderr are the container's own. The log goes to Stderr.
	Stdout, Stderr *os.File
	// Signals are those sent to the container. They are passed on to the guest.
	// The channel is not closed while Run runs; nil is none.
	Signals <-chan syscall.Signal
	// Start starts the guest.
	Start Starter
}

// Exit codes that are not the guest's.
const (
	// ExitFailure is for a failure before or after the guest.
	ExitFailure = 64
	// exitNotReady is for a failure of Argo's supervisor, or of staging its
	// artifacts, in a pod without init containers (Argo 4.1).
	exitNotReady = 65
)

// Run does what Argo expects around the guest, which it runs as often as the
// template says, and returns the container's exit code: the guest's, 128 plus the
// signal that ended it, or one of Argo's for a failure of its own (see Exit…).
// Errors are logged. Run clears the process's umask, as argoexec does, so guests
// started later have none either. When ctx ends, so does the guest.
func (e *Emissary) Run(ctx context.Context) int {
	syscall.Umask(0)
	r := run{Emissary: e, log: newLog(e.Command, e.Stderr), recorded: ExitFailure}
	defer r.close()
	err := r.open()
	if err == nil {
		err = r.contract(ctx)
		r.record()
	}
	return r.report(err)
}

// run is one Run.
type run struct {
	*Emissary
	log          *slog.Logger
	volume, root *tree
	container    string // ARGO_CONTAINER_NAME
	ctrDir       string // the container's directory in the volume
	template     *template
	recorded     int // the exit code for Argo's other containers
	stopped      bool
}

// exitError is an end with an exit code of its own. Without a cause it is the
// guest's.
type exitError struct {
	code  int
	cause error
}

func (e exitError) Error() string {
	if e.cause != nil {
		return e.cause.Error()
	}
	return "exit status " + strconv.Itoa(e.code)
}

func (e exitError) Unwrap() error { return e.cause }

// open finds the volume, the root and the container's directory in the volume.
func (r *run) open() (err error) {
	r.container = r.env("ARGO_CONTAINER_NAME")
	if err := checkName(r.container); err != nil {
		return fmt.Errorf("environment variable ARGO_CONTAINER_NAME: %w", err)
	}
	if r.volume, err = openVolume(r.Volume); err != nil {
		return fmt.Errorf("open the volume of %s: %w", VolumePath, err)
	}
	if r.root, err = openRoot(r.Root); err != nil {
		return fmt.Errorf("open the container's root: %w", err)
	}
	r.ctrDir = "ctr/" + r.container
	// Its existence shows that the container runs. Others write signals there.
	if err := r.volume.mkdirAll(r.ctrDir, 0o777); err != nil {
		return fmt.Errorf("make the container's directory in %s: %w", VolumePath, err)
	}
	return nil
}

func (r *run) close() {
	for _, t := range []*tree{r.volume, r.root} {
		if t != nil {
			t.close()
		}
	}
}

// contract does everything between opening the container's directory and writing its exit
// code, in upstream's order.
func (r *run) contract(ctx context.Context) error {
	args, err := r.arguments()
	if err != nil {
		return err
	}
	if err := r.awaitReady(ctx); err != nil {
		return err
	}
	if r.template, err = r.readTemplate(); err != nil {
		return err
	}
	if err := r.stage(); err != nil {
		return err
	}
	if err := r.awaitDependencies(ctx); err != nil {
		return err
	}
	if err := r.pause(ctx, "BEFORE", "before"); err != nil {
		return err
	}
	times, pause, err := r.template.attempts()
	if err != nil {
		return err
	}
	ended := r.attempts(ctx, args, times, pause)
	r.log.Info("sub-process exited", "error", ended)
	if err := r.pause(ctx, "AFTER", "after"); err != nil {
		r.log.Info("no longer waiting to be released", "error", err)
	}
	var exit exitError
	switch {
	case ended == nil:
		r.recorded = 0
	case errors.As(ended, &exit):
		r.recorded = exit.code
	}
	if err := r.saveOutputs(); err != nil {
		return err
	}
	return ended
}

// env returns a variable of the container's environment.
func (r *run) env(name string) string { return environ.Get(r.Env, name) }

func (r *run) lookupEnv(name string) (string, bool) { return environ.Lookup(r.Env, name) }

// checkName fails for a text that cannot be the name of a container or an artifact, or that
// would be another path than it seems.
func checkName(name string) error {
	switch {
	case name == "":
		return errors.New("is not set")
	case name == "." || name == ".." || strings.ContainsAny(name, "/\x00") || len(name) > unix.NAME_MAX:
		return fmt.Errorf("%.80q is no name", name)
	}
	return nil
}

// record writes the exit code for Argo's other containers.
func (r *run) record() {
	if err := writeExitCode(r.volume, r.ctrDir, r.recorded); err != nil {
		r.log.Error("cannot write the exit code", "error", err)
	}
}

// writeExitCode writes the exit code. On a full disk it leaves an empty file, as upstream does: the wait container only
// looks whether the file is there, and would otherwise never end.
func writeExitCode(volume *tree, dir string, code int) error {
	name := dir + "/exitcode"
	err := volume.replace(name, 0o644, func(f *os.File) error {
		_, err := f.WriteString(strconv.Itoa(code))
		return err
	})
	if err == nil {
		return nil
	}
	if f, emptyErr := volume.open(name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL, 0o644); emptyErr == nil {
		f.Close()
	}
	return err
}

// WriteExitCode records the exit code of a container whose emissary has died, so that
// Argo's other containers do not wait for it. volume is the directory that is
// mounted at VolumePath, opened with O_PATH, container the value of
// ARGO_CONTAINER_NAME. A code that is there already stays.
func WriteExitCode(volume *os.File, container string, code int) error {
	err := checkName(container)
	if err == nil {
		err = writeMissingExitCode(&tree{dir: volume, resolve: resolveInVolume}, container, code)
	}
	if err != nil {
		return fmt.Errorf("write the exit code of container %.80q for Argo: %w", container, err)
	}
	return nil
}

func writeMissingExitCode(volume *tree, container string, code int) error {
	dir := "ctr/" + container
	if err := volume.mkdirAll(dir, 0o777); err != nil {
		return err
	}
	if _, err := volume.read(dir+"/exitcode", maxNumber); err == nil {
		return nil
	}
	return writeExitCode(volume, dir, code)
}

// report logs why the container ends, for people and the kubelet, and returns its exit code. It
// does not explain a guest's own failure, and leaves a message alone that the guest may
// have written for the kubelet.
func (r *run) report(err error) int {
	if err == nil {
		return 0
	}
	fmt.Fprintln(r.Stderr, "Error:", err)
	var exit exitError
	if !errors.As(err, &exit) {
		exit = exitError{code: ExitFailure, cause: err}
	}
	if exit.cause != nil {
		r.explain(err)
	}
	return exit.code
}

// explain leaves the container's termination message, where the kubelet mounts a
// file for it by default.
func (r *run) explain(err error) {
	if r.root == nil {
		return
	}
	const file = "/dev/termination-log"
	if _, err := r.root.stat(file, unix.O_NOFOLLOW); err != nil {
		return
	}
	f, openErr := r.root.open(file, unix.O_WRONLY|unix.O_TRUNC|unix.O_NOFOLLOW, 0)
	if openErr != nil {
		r.log.Warn("cannot write the termination message", "error", openErr)
		return
	}
	defer f.Close()
	_, _ = f.WriteString(err.Error())
}

// absolute returns a path of a template as the container sees it.
func (r *run) absolute(name string) string {
	if path.IsAbs(name) {
		return path.Clean(name)
	}
	return path.Join("/", r.Dir, name)
}

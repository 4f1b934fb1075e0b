package argo

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// maxNumber bounds files that hold a number, in bytes.
const maxNumber = 64

// errTerminated is the end of a container that is asked to end before its guest has begun: 128
// plus SIGTERM. Argo's other containers read 64, as from upstream.
var errTerminated = exitError{code: 128 + int(syscall.SIGTERM)}

// until calls done again and again until it reports true. It ends early with an error of done,
// with ctx, or when the container is asked to end.
func (r *run) until(ctx context.Context, done func() (bool, error)) error {
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	for {
		if ok, err := done(); ok || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case signal := <-r.Signals:
			if signal == syscall.SIGTERM {
				return errTerminated
			}
		case <-tick.C:
		}
	}
}

// awaitDependencies waits for the containers of the set that this one depends on.
func (r *run) awaitDependencies(ctx context.Context) error {
	for _, dependency := range r.template.dependencies(r.container) {
		if err := checkName(dependency); err != nil {
			return fmt.Errorf("dependency: %w", err)
		}
		r.log.Info("waiting for dependency", "dependency", dependency)
		var code int
		err := r.until(ctx, func() (ended bool, err error) {
			code, ended = r.number("ctr/" + dependency + "/exitcode")
			return ended, nil
		})
		if err != nil {
			return err
		}
		if code != 0 {
			return fmt.Errorf("dependency %q has failed with exit code %d", dependency, code)
		}
	}
	return nil
}

// number reads a number from a file of the volume. A file without a number, or without one
// yet, counts as missing.
func (r *run) number(name string) (int, bool) {
	data, err := r.volume.read(name, maxNumber)
	if err != nil {
		return 0, false
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(data)))
	return n, err == nil
}

// pause waits, if the environment asks for it, until somebody makes a file in the
// container's directory of the volume. See upstream's docs/debug-pause.md.
func (r *run) pause(ctx context.Context, variable, file string) error {
	if r.env("ARGO_DEBUG_PAUSE_"+variable) != "true" {
		return nil
	}
	r.log.Info("waiting to be released", "file", VolumePath+"/"+r.ctrDir+"/"+file)
	return r.until(ctx, func() (bool, error) {
		return r.volume.exists(r.ctrDir + "/" + file), nil
	})
}

// The status file of Argo 4.1's supervisor, in a pod without init containers, and how long it
// may stay unchanged.
const (
	statusFile    = "status"
	statusReady   = "READY"
	statusFailed  = "FAILED"
	statusTimeout = 30 * time.Second
	maxStatus     = 1 << 20
)

// awaitReady waits until Argo's supervisor has prepared the pod, if there is one.
// It writes its status anew every five seconds meanwhile.
func (r *run) awaitReady(ctx context.Context) error {
	if !r.hasSupervisor() {
		return nil
	}
	r.log.Info("waiting for the supervisor")
	began := time.Now()
	err := r.until(ctx, func() (bool, error) { return r.ready(began) })
	if err == nil || errors.Is(err, errTerminated) {
		return err
	}
	return r.notReady(err)
}

func (r *run) hasSupervisor() bool { return r.env("ARGO_WAIT_FOR_READY") == "true" }

// notReady wraps err so that Argo's controller sees that the guest is not to blame.
func (r *run) notReady(err error) error {
	r.recorded = exitNotReady
	return exitError{code: exitNotReady, cause: err}
}

func (r *run) ready(began time.Time) (bool, error) {
	info, err := r.volume.stat(statusFile, 0)
	if errors.Is(err, fs.ErrNotExist) {
		if time.Since(began) > statusTimeout {
			return false, fmt.Errorf("argo's supervisor has not begun within %v", statusTimeout)
		}
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("supervisor's status: %w", err)
	}
	status, err := r.volume.read(statusFile, maxStatus)
	if err != nil && !errors.Is(err, fs.ErrNotExist) { // it is being replaced
		return false, fmt.Errorf("supervisor's status: %w", err)
	}
	token, message, _ := strings.Cut(string(status), "\n")
	switch strings.TrimSpace(token) {
	case statusReady:
		return true, nil
	case statusFailed:
		return false, fmt.Errorf("argo's supervisor has failed: %s", strings.TrimSpace(message))
	}
	if time.Since(info.ModTime()) > statusTimeout {
		return false, fmt.Errorf("argo's supervisor has said nothing for %v", statusTimeout)
	}
	return false, nil
}

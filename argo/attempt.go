package argo

import (
	"context"
	"fmt"
	"strconv"
	"syscall"
	"time"
)

// attempts runs the guest until it succeeds, at most as often as the template allows. It returns
// nil, or the error of the last run. Once the container is asked to end, it does not run the guest
// again; upstream would.
func (r *run) attempts(ctx context.Context, args []string, times int, pause time.Duration) error {
	args = append([]string{r.File}, args...)
	for left := times; ; {
		err := r.attempt(ctx, args)
		left--
		if err == nil || left == 0 || r.stopped || ctx.Err() != nil {
			return err
		}
		r.log.Info("sub-process is run again", "error", err, "in", pause, "left", left)
		if r.rest(ctx, pause); r.stopped {
			return err
		}
	}
}

// rest waits for the next attempt.
func (r *run) rest(ctx context.Context, pause time.Duration) {
	end := time.Now().Add(pause)
	err := r.until(ctx, func() (bool, error) {
		if signal, ok := r.takeSignal(); ok {
			r.noticeEnd(signal)
		}
		return r.stopped || !time.Now().Before(end), nil
	})
	if err != nil {
		r.stopped = true
	}
}

// attempt runs the guest once.
func (r *run) attempt(ctx context.Context, args []string) error {
	stdout, stderr := r.Stdout, r.Stderr
	if r.env("ARGO_INCLUDE_SCRIPT_OUTPUT") == "true" || r.template.archivesLogs() {
		r.log.Info("capturing logs")
		c, err := newCapture(r.volume, r.ctrDir, stdout, stderr, r.log)
		if err != nil {
			return fmt.Errorf("capture the output: %w", err)
		}
		defer c.close()
		defer c.started()
		stdout, stderr = c.stdout, c.stderr
	}
	guest, err := r.Start(ctx, Attempt{Args: args, Stdout: stdout, Stderr: stderr})
	if err != nil {
		return fmt.Errorf("start %s: %w", r.File, err)
	}
	return r.attend(ctx, guest)
}

// attend passes signals on to a guest until it ends.
func (r *run) attend(ctx context.Context, guest Guest) error {
	ended := make(chan error, 1)
	go func() { ended <- result(guest.Wait()) }()
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	sidecar := r.newSidecar(guest)
	cancelled := ctx.Done()
	for {
		select {
		case err := <-ended:
			return err
		case <-cancelled:
			cancelled = nil
			r.send(guest, syscall.SIGKILL)
		case signal := <-r.Signals:
			if signal != syscall.SIGCHLD && signal != syscall.SIGURG {
				r.send(guest, signal)
			}
		case <-tick.C:
			if signal, ok := r.takeSignal(); ok {
				r.log.Info("received signal", "signal", int(signal))
				r.send(guest, signal)
			}
			sidecar.look(r)
		}
	}
}

// result returns what the guest's end means for the container.
func result(code int, signal syscall.Signal, err error) error {
	switch {
	case err != nil:
		return err
	case signal != 0:
		return exitError{code: 128 + int(signal)}
	case code != 0:
		return exitError{code: code}
	}
	return nil
}

func (r *run) send(guest Guest, signal syscall.Signal) {
	r.log.Debug("forwarding signal", "signal", int(signal))
	r.noticeEnd(signal)
	_ = guest.Signal(signal)
}

func (r *run) noticeEnd(signal syscall.Signal) {
	if signal == syscall.SIGTERM || signal == syscall.SIGKILL {
		r.stopped = true
	}
}

// takeSignal returns the signal that Argo's wait container, or a sidecar, left for
// this one, and removes it. A file that holds no signal (yet) stays.
func (r *run) takeSignal() (syscall.Signal, bool) {
	file := r.ctrDir + "/signal"
	n, ok := r.number(file)
	if !ok || n <= 0 || n > maxSignal {
		return 0, false
	}
	if err := r.volume.remove(file); err != nil {
		r.log.Warn("cannot remove the signal file", "error", err)
	}
	return syscall.Signal(n), true
}

// sidecar ends a guest when the main containers have ended. Since Argo 3.6 the emissary does that
// itself; before, wait's signal file did.
type sidecar struct {
	guest Guest
	mains []string // main containers that have not ended; nil if this is no sidecar
	kill  time.Time
}

func (r *run) newSidecar(guest Guest) *sidecar {
	if !r.template.isSidecar(r.container) {
		return &sidecar{}
	}
	return &sidecar{guest: guest, mains: r.template.mainContainers()}
}

// look sends SIGTERM when the main containers have ended, and SIGKILL after the grace period.
func (s *sidecar) look(r *run) {
	switch {
	case s.guest == nil:
	case !s.kill.IsZero():
		if time.Now().After(s.kill) {
			r.send(s.guest, syscall.SIGKILL)
			s.guest = nil
		}
	default:
		for len(s.mains) > 0 {
			if err := checkName(s.mains[0]); err == nil && !r.volume.exists("ctr/"+s.mains[0]+"/exitcode") {
				return
			}
			s.mains = s.mains[1:]
		}
		r.log.Info("main containers have ended, so this sidecar ends")
		s.kill = time.Now().Add(r.gracePeriod())
		r.send(s.guest, syscall.SIGTERM)
	}
}

// gracePeriod is the pod's, between SIGTERM and SIGKILL.
func (r *run) gracePeriod() time.Duration {
	seconds, err := strconv.ParseInt(r.env("ARGO_TERMINATION_GRACE_PERIOD_SECONDS"), 10, 32)
	if err != nil || seconds <= 0 {
		return 30 * time.Second
	}
	return time.Duration(seconds) * time.Second
}

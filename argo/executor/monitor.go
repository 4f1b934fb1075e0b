package executor

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// finalGrace is how long SIGKILL may take.
const finalGrace = 10 * time.Second

// monitorDeadline ends the main containers at the step's deadline.
func (w *waiter) monitorDeadline(ctx context.Context) {
	if w.deadline.IsZero() {
		return
	}
	w.log.Info("Starting deadline monitor")
	if !w.sleep(ctx, time.Until(w.deadline)) {
		w.log.Info("Deadline monitor stopped")
		return
	}
	const message = "Step exceeded its deadline"
	w.log.Info(message)
	terminateWith(message)
	w.log.Info("Killing containers", "grace", w.grace)
	if err := w.kill(ctx); err != nil {
		w.log.Warn("Failed to kill", "error", err)
	}
}

// sleep reports whether a time has passed before the main containers have ended, or ctx has.
func (w *waiter) sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-w.done:
	case <-timer.C:
		return true
	}
	return false
}

// kill asks the emissaries of the main containers to end them, and then to kill them.
func (w *waiter) kill(ctx context.Context) error {
	if err := w.signal(syscall.SIGTERM); err != nil {
		return err
	}
	if !w.sleep(ctx, w.grace) {
		return nil
	}
	if err := w.signal(syscall.SIGKILL); err != nil {
		return err
	}
	if w.sleep(ctx, finalGrace) {
		return context.DeadlineExceeded
	}
	return nil
}

// signal leaves a signal for the emissary of each main container. Each removes the file when it has
// read it, so that other users may write to it, too.
func (w *waiter) signal(s syscall.Signal) error {
	for _, name := range w.t.mains() {
		dir := "ctr/" + name
		if err := w.argo.mkdirAll(dir, 0o777); err != nil {
			return err
		}
		if err := w.argo.replaceWith(dir+"/signal", 0o666, []byte(strconv.Itoa(int(s)))); err != nil {
			return err
		}
	}
	return nil
}

// maxProgress bounds what is read of the progress file, in bytes: its end.
const maxProgress = 64 << 10

// monitorProgress reports what the main container says of its progress: the last line of a file.
func (w *waiter) monitorProgress(ctx context.Context) {
	if w.progressFile == "" {
		w.log.Info("monitoring progress disabled")
		return
	}
	read, patch := time.NewTicker(w.progressRead), time.NewTicker(w.progressPatch)
	defer read.Stop()
	defer patch.Stop()
	var last, progress string
	for {
		select {
		case <-ctx.Done():
			w.log.Info("stopping progress monitor")
			return
		case <-patch.C:
			// Upstream reports even if there is nothing new.
			if err := w.client.report(ctx, nil, progress); err != nil {
				w.log.Info("failed to report progress", "error", err)
				continue
			}
			progress = ""
		case <-read.C:
			line, err := w.progressLine()
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				w.log.Info("unable to watch file", "error", err)
			}
			if err != nil || line == "" || line == last {
				continue
			}
			last = line
			if !validProgress(line) {
				w.log.Info("unable to parse progress", "line", quote(line))
				continue
			}
			w.log.Info("progress", "progress", quote(line))
			progress = line
		}
	}
}

func (w *waiter) progressLine() (string, error) {
	data, _, err := w.argo.tail(w.progressFile, maxProgress)
	if err != nil {
		return "", err
	}
	data = bytes.TrimSpace(data)
	return string(bytes.TrimSpace(data[bytes.LastIndexByte(data, '\n')+1:])), nil
}

// validProgress reports whether a line is N/M. A part that is no number counts as 0, as from
// upstream, which panics on a line without a slash.
func validProgress(line string) bool {
	n, m, ok := strings.Cut(line, "/")
	if !ok {
		return false
	}
	done, _ := strconv.ParseInt(n, 10, 64)
	all, _ := strconv.ParseInt(m, 10, 64)
	return done >= 0 && done <= all && all > 0
}

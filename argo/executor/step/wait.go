package step

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/wasmshim/containerd-shim-wasm/argo"
	"github.com/wasmshim/containerd-shim-wasm/argo/executor"
	"github.com/wasmshim/containerd-shim-wasm/argo/executor/taskresult"
	"github.com/wasmshim/containerd-shim-wasm/worker/control"
)

// Wait does the work of argoexec wait and returns its exit code. When ctx ends, which is the end of the container, it
// waits no longer and reports what there is.
func Wait(ctx context.Context, p Pod) int {
	s, deadline, err := p.prepareWait()
	if err != nil {
		return p.cannotBegin(err)
	}
	// The end of the container must not keep results from being reported.
	report := context.WithoutCancel(ctx)
	s.fail(s.report(report, taskresult.Result{})) // the controller waits for more from then on
	watching, stop := context.WithCancel(ctx)
	s.monitor(watching, deadline)
	err = s.await(ctx, s.template.MainContainers())
	stop()
	s.killing.Wait()
	if err != nil && !errors.Is(err, context.Canceled) {
		s.fail(fmt.Errorf("failed to wait for main container to complete: %w", err))
	}
	s.fail(s.captureResult())
	s.fail(s.saveParameters())
	s.fail(s.saveOutputs(report))
	s.fail(s.reportOutputs(report))
	failed := s.failed()
	s.fail(s.client.Complete(report))
	return s.end(failed)
}

func (p Pod) prepareWait() (*step, time.Time, error) {
	deadline, err := p.deadline()
	if err != nil {
		return nil, deadline, err
	}
	s, err := p.begin()
	if err != nil {
		return nil, deadline, err
	}
	s.client, err = p.connect()
	return s, deadline, err
}

// begin reads the template that init has left.
func (p Pod) begin() (*step, error) {
	s := &step{Pod: p, volume: volume{p.Root + argo.VolumePath}}
	f, err := s.volume.open("template", os.O_RDONLY)
	if err != nil {
		return nil, err
	}
	text, err := readAll(f)
	if err != nil {
		return nil, err
	}
	if p.Template != "" && control.TemplateDigest(text) != p.Template {
		return nil, fmt.Errorf("%s is not the template that the init container has written: another container of the pod has replaced it", f.Name())
	}
	s.template, err = executor.ParseTemplate([]byte(text))
	return s, err
}

// pollInterval is the time between two looks for the containers' ends where the kernel does not tell of changes.
const pollInterval = time.Second

// await waits until the containers have ended: each leaves a file with its exit code.
func (s *step) await(ctx context.Context, containers []string) error {
	w := newWatch()
	defer w.close()
	for {
		// Watch before the look, so that no change comes between.
		w.add(s.volume.path)
		w.add(s.volume.path + "/ctr")
		for _, name := range containers {
			w.add(s.volume.path + "/ctr/" + name)
		}
		if s.haveEnded(containers) {
			return nil
		}
		if err := w.wait(ctx); err != nil {
			return err
		}
	}
}

func (s *step) haveEnded(containers []string) bool {
	for _, name := range containers {
		if !s.volume.exists("ctr/" + name + "/exitcode") {
			return false
		}
	}
	return true
}

// monitor ends the containers at the deadline, and reports progress, until ctx ends.
func (s *step) monitor(ctx context.Context, deadline time.Time) {
	if !deadline.IsZero() {
		s.killing.Go(func() { s.endAt(ctx, deadline) })
	}
	patch, read := s.duration("ARGO_PROGRESS_PATCH_TICK_DURATION"), s.duration("ARGO_PROGRESS_FILE_TICK_DURATION")
	if patch > 0 && read > 0 {
		go s.reportProgress(ctx, patch, read)
	}
}

// endAt ends the containers at the deadline.
func (s *step) endAt(ctx context.Context, deadline time.Time) {
	timer := time.NewTimer(time.Until(deadline))
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return
	case <-timer.C:
	}
	const message = "Step exceeded its deadline"
	s.Log.Info(message)
	s.terminate(message)
	if err := s.kill(ctx, s.template.MainContainers()); err != nil {
		s.Log.Warn("end the containers: the step runs on after its deadline", "error", err)
	}
}

// kill has the containers ended: those that have not ended some time after SIGTERM, by SIGKILL.
func (s *step) kill(ctx context.Context, containers []string) error {
	if err := s.signal(containers, syscall.SIGTERM); err != nil {
		return err
	}
	patience, cancel := context.WithTimeout(ctx, s.grace())
	defer cancel()
	if s.await(patience, containers) == nil || s.haveEnded(containers) {
		return nil
	}
	// Also when wait itself is to end: nobody else ends them then.
	return s.signal(containers, syscall.SIGKILL)
}

// signal leaves a signal's number for the container's first process, Argo's emissary.
func (s *step) signal(containers []string, signal syscall.Signal) error {
	for _, name := range containers {
		if err := s.volume.mkdir("ctr/"+name, 0o777); err != nil {
			return err
		}
		if err := s.volume.write("ctr/"+name+"/signal", strconv.Itoa(int(signal)), 0o666); err != nil {
			return err
		}
	}
	return nil
}

// reportProgress reports what the main container has written last into its progress file, N/M.
func (s *step) reportProgress(ctx context.Context, patch, read time.Duration) {
	patches, reads := time.NewTicker(patch), time.NewTicker(read)
	defer patches.Stop()
	defer reads.Stop()
	var last, progress string
	for {
		select {
		case <-ctx.Done():
			return
		case <-reads.C:
			line, err := s.lastProgress()
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				s.Log.Info("read the progress file", "error", err)
			}
			if line != "" && line != last && isProgress(line) {
				progress = line
			}
			last = line
		case <-patches.C:
			if progress == "" {
				continue
			}
			if err := s.report(ctx, taskresult.Result{Progress: progress}); err != nil {
				s.Log.Info("report progress", "error", err)
				continue
			}
			progress = ""
		}
	}
}

// lastProgress returns the last line of the progress file.
func (s *step) lastProgress() (string, error) {
	name, ok := strings.CutPrefix(s.env("ARGO_PROGRESS_FILE"), argo.VolumePath+"/")
	if !ok {
		return "", nil
	}
	f, err := s.volume.open(name, os.O_RDONLY)
	if err != nil {
		return "", err
	}
	text, err := readRegular(f, maxProgress)
	if err != nil {
		return "", err
	}
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	return strings.TrimSpace(lines[len(lines)-1]), nil
}

// maxProgress bounds what is read of the progress file, in bytes.
const maxProgress = 4 << 10

// isProgress reports whether a line is N/M with N up to M (upstream's Progress.IsValid).
func isProgress(line string) bool {
	before, after, _ := strings.Cut(line, "/")
	n, err := strconv.ParseInt(before, 10, 64)
	m, mErr := strconv.ParseInt(after, 10, 64)
	return err == nil && mErr == nil && n >= 0 && m > 0 && n <= m
}

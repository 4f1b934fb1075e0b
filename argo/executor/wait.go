package executor

import (
	"context"
	"encoding/json"
)

// wait waits for the main containers, and reports what they leave.
func (e *executor) wait(ctx context.Context) error {
	argo, err := openVolume(varRunArgo, "template", false)
	if err != nil {
		return panicError{err}
	}
	defer argo.close()
	data, err := argo.read("template", maxTemplate)
	if err != nil {
		return panicError{err}
	}
	t, err := parseTemplate(data)
	if err != nil {
		return unknownError{err}
	}
	client, err := e.newReporter()
	if err != nil {
		return unknownError{err}
	}
	w := &waiter{executor: e, argo: argo, t: t, client: client}
	err = w.run(ctx)
	if err := client.complete(); err != nil {
		// Too late for the exit code, as from upstream.
		e.addError(err)
	}
	return err
}

// waiter is one run of wait.
type waiter struct {
	*executor
	argo   *volume
	t      *template
	client reporter
	done   chan struct{} // closed when the main containers have ended
}

// reporter reports to the API server, and tries again until it has an answer. It cannot be
// interrupted by SIGTERM: what a container leaves shall be known.
type reporter interface {
	report(ctx context.Context, outputs json.RawMessage, progress string) error
	complete() error
}

func (w *waiter) run(ctx context.Context) error {
	background := context.WithoutCancel(ctx)
	// An empty result is there from the beginning: the controller sees that more will come.
	w.add(w.client.report(background, nil, ""))
	w.await(ctx)
	w.add(w.captureResult())
	w.add(w.saveParameters())
	w.log.Info("No output artifacts")
	outputs, err := json.Marshal(w.t.Outputs)
	if err == nil {
		err = w.client.report(background, outputs, "")
	}
	w.add(err)
	return w.firstError()
}

func (w *waiter) add(err error) {
	if err != nil {
		w.addError(err)
	}
}

// await waits for the main containers, or for SIGTERM.
func (w *waiter) await(ctx context.Context) {
	ctx, stop := context.WithCancel(ctx)
	w.done = make(chan struct{})
	c := completion{volume: w.argo, names: w.t.mains(), done: w.done, log: w.log}
	var ended []chan struct{}
	for _, run := range []func(context.Context){c.watch, w.monitorDeadline, w.monitorProgress} {
		end := make(chan struct{})
		ended = append(ended, end)
		go func() { defer close(end); run(ctx) }()
	}
	select {
	case <-ctx.Done():
		w.log.Info("Main container completed", "error", ctx.Err())
	case <-w.done:
		w.log.Info("Main container completed")
	}
	stop()
	for _, end := range ended {
		<-end
	}
}

// maxResult is what is reported of a container's output, in bytes: its end.
const maxResult = 256 << 10

// captureResult takes the output of the container main, if the workflow refers to it.
func (w *waiter) captureResult() error {
	switch {
	case !w.scriptOutput:
		w.log.Info("No Script output reference in workflow. Capturing script output ignored")
		return nil
	case !w.t.hasResult():
		w.log.Info("Template has no container main. Capturing script output ignored")
		return nil
	}
	w.log.Info("Capturing script output")
	out, skipped, err := w.argo.tail("ctr/"+mainContainer+"/stdout", maxResult+1)
	if err != nil {
		return err
	}
	if n := len(out); n > 0 && out[n-1] == '\n' {
		out = out[:n-1]
	}
	if skipped > 0 || len(out) > maxResult {
		w.log.Warn("Output is larger than the maximum allowed size of 256 kB, only the last 256 kB were saved")
		out = out[max(0, len(out)-maxResult):]
	}
	result := string(out)
	w.t.Outputs.Result = &result
	return nil
}

// maxParameter bounds an output parameter, in bytes. An API server takes requests of 3 MiB.
const maxParameter = 4 << 20

// saveParameters reads the output parameters that are files. The first that fails ends it.
func (w *waiter) saveParameters() error {
	if len(w.t.Outputs.Parameters) == 0 {
		w.log.Info("No output parameters")
		return nil
	}
	w.log.Info("Saving output parameters")
	for i := range w.t.Outputs.Parameters {
		p := &w.t.Outputs.Parameters[i]
		if p.ValueFrom == nil || p.ValueFrom.Path == "" {
			continue
		}
		value, err := w.parameter(p.ValueFrom.Path)
		if err != nil {
			if p.ValueFrom.Default == nil {
				return err
			}
			w.log.Info("Output parameter has its default value", "name", p.Name, "error", err)
			value = string(*p.ValueFrom.Default)
		}
		if n := len(value); n > 0 && value[n-1] == '\n' {
			value = value[:n-1]
		}
		text := anyString(value)
		p.Value = &text
		w.log.Info("Successfully saved output parameter", "name", p.Name)
	}
	return nil
}

// parameter reads the file of an output parameter: from a volume of the main container, which is
// mounted here too, or from where its emissary has copied it.
func (w *waiter) parameter(name string) (string, error) {
	if !w.t.onVolume(name) {
		data, err := w.argo.read("outputs/parameters/"+relative(name), maxParameter)
		return string(data), err
	}
	// Links within a volume may be what a program makes, links out of it are not.
	volumes, err := openVolume(mainVolume, relative(name), true)
	if err != nil {
		return "", err
	}
	defer volumes.close()
	data, err := volumes.read(relative(name), maxParameter)
	return string(data), err
}

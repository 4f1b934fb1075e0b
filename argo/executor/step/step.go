// Package step does the work of Argo's executor in a container of a workflow's pod: what "argoexec init" and "argoexec
// wait" do there for the templates that package executor knows. The sources are upstream's cmd/argoexec/{executor,
// commands} and workflow/executor, in 3.6, 3.7 and 4.0.
//
// It runs in the container, with the container's rights, and speaks to nobody but the API server (package
// taskresult) and the stores of the template's artifacts (package artifact). Neighbours that are not trusted write into
// the pod's volumes: of them, only regular files are read, without waiting. No link below /var/run/argo is followed, and
// none of the main container's volumes leads out of them.
package step

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/wasmshim/containerd-shim-wasm/argo/executor"
	"github.com/wasmshim/containerd-shim-wasm/argo/executor/taskresult"
)

// Exit codes of argoexec.
const (
	exitError = 64 // it has failed, and the termination message says why (upstream's cmd/argoexec/main.go)
	exitPanic = 2  // it could not begin (executor.CheckErr)
)

// Pod is the pod in whose container the executor runs.
type Pod struct {
	// Release is the release of Argo that the executor stands in for, such as v4.0.2.
	Release string
	// Template is the digest of the template that init has left, as control.TemplateDigest returns it. Other containers
	// that end before wait begins may write into the volume, and another template would have wait send its secrets
	// elsewhere. Empty stands for any.
	Template string
	// Lazy lets init leave input artifacts to be read from their stores later (executor.Template.Lazy).
	Lazy bool
	// Getenv returns a variable of the container.
	Getenv func(string) (string, bool)
	// Root is the folder in which the paths of the container begin: "/" but for tests.
	Root string
	Log  *slog.Logger
}

// step is the work on one step of a workflow.
type step struct {
	Pod
	volume   volume
	template *executor.Template

	killing   sync.WaitGroup // the deadline's work
	reporting sync.Mutex     // guards client
	client    reporter

	errs []error // the first is the message of the node
}

// reporter reports to the controller.
type reporter interface {
	Report(ctx context.Context, r taskresult.Result) error
	Complete(ctx context.Context) error
}

func (p Pod) env(name string) string {
	value, _ := p.Getenv(name)
	return value
}

// terminationLog is the file whose content is the container's termination message.
const terminationLog = "/dev/termination-log"

// terminate writes the termination message.
func (p Pod) terminate(message string) {
	if err := os.WriteFile(p.Root+terminationLog, []byte(message), 0o600); err != nil {
		p.Log.Warn("write the termination message: the node's message will not say why the container ended", "error", err)
	}
}

// cannotBegin ends a container that has done nothing.
func (p Pod) cannotBegin(err error) int {
	p.Log.Error("begin", "error", err)
	p.terminate(err.Error())
	return exitPanic
}

// fail records an error.
func (s *step) fail(err error) {
	if err == nil {
		return
	}
	s.Log.Error("executor error", "error", err)
	s.errs = append(s.errs, err)
}

// end returns the exit code, and writes the termination message if there was an error. failed is the first error
// before the last report, which alone does not make the container fail.
func (s *step) end(failed error) int {
	if err := s.failed(); err != nil {
		s.terminate(err.Error())
	}
	if failed == nil {
		return 0
	}
	return exitError
}

// failed returns the first error.
func (s *step) failed() error {
	if len(s.errs) == 0 {
		return nil
	}
	return s.errs[0]
}

// report reports a result. Two reports do not overtake each other.
func (s *step) report(ctx context.Context, r taskresult.Result) error {
	s.reporting.Lock()
	defer s.reporting.Unlock()
	return s.client.Report(ctx, r)
}

// reportOutputs reports all outputs.
func (s *step) reportOutputs(ctx context.Context) error {
	text, err := json.Marshal(s.template.Outputs)
	if err != nil {
		return fmt.Errorf("encode the outputs: %w", err)
	}
	return s.report(ctx, taskresult.Result{Outputs: text})
}

// grace returns how long a container may take to end after SIGTERM.
func (p Pod) grace() time.Duration {
	seconds, err := strconv.ParseInt(p.env("ARGO_TERMINATION_GRACE_PERIOD_SECONDS"), 10, 32)
	if err != nil || seconds <= 0 {
		return 30 * time.Second
	}
	return time.Duration(seconds) * time.Second
}

// deadline returns when the step must have ended, the zero time if it need not.
func (p Pod) deadline() (time.Time, error) { return time.Parse(time.RFC3339, p.env("ARGO_DEADLINE")) }

// duration returns a variable's duration, 0 if it has none.
func (p Pod) duration(name string) time.Duration {
	d, err := time.ParseDuration(p.env(name))
	if err != nil {
		return 0
	}
	return d
}

// connect returns the client for the step's WorkflowTaskResult.
func (p Pod) connect() (reporter, error) {
	config, err := taskresult.InCluster(p.env, strings.TrimSuffix(p.Root, "/"))
	if err != nil {
		return nil, err
	}
	config.UserAgent = fmt.Sprintf("argo-workflows/%s argo-executor", p.Release)
	of := taskresult.Of{
		Node: p.env("ARGO_NODE_ID"), Workflow: p.env("ARGO_WORKFLOW_NAME"), WorkflowUID: p.env("ARGO_WORKFLOW_UID"),
		InstanceID: p.env("ARGO_INSTANCE_ID"),
	}
	if of.Node == "" || of.Workflow == "" {
		return nil, errors.New("ARGO_NODE_ID and ARGO_WORKFLOW_NAME must be set")
	}
	return taskresult.New(config, of, p.Log)
}

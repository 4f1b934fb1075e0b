package test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	stats1 "github.com/containerd/cgroups/v3/cgroup1/stats"
	stats2 "github.com/containerd/cgroups/v3/cgroup2/stats"
	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/pkg/cio"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/containerd/v2/pkg/oci"
	"github.com/containerd/errdefs"
	"github.com/containerd/typeurl/v2"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/wasmshim/containerd-shim-wasm/internal/testguest"
	"github.com/wasmshim/containerd-shim-wasm/internal/testnode"
	"github.com/wasmshim/containerd-shim-wasm/internal/testoutput"
)

const (
	tasksWasmImage   = "example.com/tasks/wasm:latest"
	tasksNativeImage = "example.com/tasks/native:latest"
)

// way is a runtime and an image. Programs of the same name behave the same in every way.
type way struct {
	name     string
	runtime  string
	image    string
	programs map[string][]string
}

// The programs: "loop" prints "looping" and burns CPU, "sleep" prints "sleeping" and stays, both end
// on SIGTERM with 143 and on SIGINT with 130; "exit" ends with 42; "fill" writes to a tmpfs at /fill
// until it is stopped; "hello" prints a greeting.
var (
	wasmPrograms = map[string][]string{
		"loop":  {"/app.wasm", "loop"},
		"sleep": {"/app.wasm", "sleep", "1000"},
		"exit":  {"/app.wasm", "exit", "42"},
		"fill":  {"/app.wasm", "fill", "/fill/file"},
		"hello": {"/hello.wasm"},
	}
	nativePrograms = map[string][]string{
		"loop":  trapping("echo looping; while :; do :; done"),
		"sleep": trapping("echo sleeping; sleep 1000 & wait"),
		"exit":  {"sh", "-c", "exit 42"},
		"fill":  {"dd", "if=/dev/zero", "of=/fill/file", "bs=64k"},
		"hello": {"/hello"},
	}

	asWasm   = way{"wasm", runtime, tasksWasmImage, wasmPrograms}
	asNative = way{"native", runtime, tasksNativeImage, nativePrograms}
	asStock  = way{"stock", stock, tasksNativeImage, nativePrograms}
)

// trapping returns a shell script that ends on signals. As process 1 it would ignore them by default.
func trapping(script string) []string {
	return []string{"sh", "-c", `trap "exit 143" TERM; trap "exit 130" INT; ` + script}
}

// fillMount is the tmpfs to which "fill" writes. It is larger than the memory limit of any container here.
var fillMount = oci.WithMounts([]specs.Mount{{Destination: "/fill", Type: "tmpfs", Source: "tmpfs", Options: []string{"size=256m"}}})

// importTaskImages imports the images of all ways, unless the node has them already.
func importTaskImages(t *testing.T, node *testnode.Node) {
	t.Helper()
	if _, err := node.Client(t).GetImage(t.Context(), tasksNativeImage); err == nil {
		return
	}
	node.Import(t, tasksWasmTar(t))
	node.Import(t, testguest.Busybox(t, tasksNativeImage))
}

func tasksWasmTar(t *testing.T) string {
	t.Helper()
	opts, err := testguest.WasmImage("probe")
	if err != nil {
		t.Fatal(err)
	}
	opts.Files["/hello.wasm"] = testguest.Build(t, "hello-c")
	opts.Files["/native"] = testguest.Build(t, "hello-native")
	opts.Dirs = []string{"/tmp"}
	return testguest.Image(t, tasksWasmImage, opts)
}

// eachVersionWithTasks runs the test on every containerd with the images imported. The test fails if it leaves
// anything behind.
func eachVersionWithTasks(t *testing.T, test func(t *testing.T, node *testnode.Node)) {
	t.Helper()
	nodes.EachVersion(t, func(t *testing.T, node *testnode.Node) {
		importTaskImages(t, node)
		node.NoLeaks(t)
		test(t, node)
	})
}

// task is a container with a task, removed at the end of its test.
type task struct {
	client.Task
	t         testing.TB
	ctx       context.Context // with the node's namespace
	node      *testnode.Node
	client    *client.Client
	container client.Container
	output    *output
	exited    <-chan client.ExitStatus
	way       way
}

var lastTask atomic.Int64

// create makes a task of one of the way's programs, without starting it.
func (w way) create(t testing.TB, node *testnode.Node, program string, opts ...oci.SpecOpts) *task {
	t.Helper()
	args, ok := w.programs[program]
	if !ok {
		t.Fatalf("no program %q", program)
	}
	return w.createArgs(t, node, args, opts...)
}

func (w way) createArgs(t testing.TB, node *testnode.Node, args []string, opts ...oci.SpecOpts) *task {
	t.Helper()
	task, err := w.tryCreate(t, node, node.Client(t), args, opts...)
	if err != nil {
		t.Fatal(err)
	}
	return task
}

func (w way) tryCreate(t testing.TB, node *testnode.Node, c *client.Client, args []string, opts ...oci.SpecOpts) (*task, error) {
	return w.tryCreateWithin(context.Background(), t, node, c, args, opts...)
}

// tryCreateWithin gives up the creation of the task when limit ends.
func (w way) tryCreateWithin(limit context.Context, t testing.TB, node *testnode.Node, c *client.Client, args []string, opts ...oci.SpecOpts) (*task, error) {
	return w.tryConfigured(limit, t, node, c, nil, args, opts...)
}

// tryConfigured gives the runtime options, nil for none.
func (w way) tryConfigured(limit context.Context, t testing.TB, node *testnode.Node, c *client.Client, options any, args []string, opts ...oci.SpecOpts) (*task, error) {
	ctx := namespaces.WithNamespace(context.Background(), node.Namespace)
	image, err := c.GetImage(ctx, w.image)
	if err != nil {
		return nil, err
	}
	id := fmt.Sprintf("%s-%d", w.name, lastTask.Add(1))
	opts = append([]oci.SpecOpts{oci.WithImageConfig(image), oci.WithProcessArgs(args...)}, opts...)
	container, err := c.NewContainer(ctx, id, client.WithImage(image), client.WithNewSnapshot(id, image),
		client.WithNewSpec(opts...), client.WithRuntime(w.runtime, options))
	if err != nil {
		return nil, err
	}
	made := &task{t: t, ctx: ctx, node: node, client: c, container: container, output: &output{}, way: w}
	t.Cleanup(made.remove)
	if made.Task, err = container.NewTask(namespaces.WithNamespace(limit, node.Namespace), cio.NewCreator(cio.WithStreams(nil, made.output, made.output))); err != nil {
		return nil, err
	}
	made.exited, err = made.Wait(ctx)
	return made, err
}

// run makes and starts a task, and returns when the task has printed ready.
func (w way) run(t testing.TB, node *testnode.Node, program, ready string, opts ...oci.SpecOpts) *task {
	t.Helper()
	task := w.create(t, node, program, opts...)
	task.start()
	task.output.await(t, ready)
	return task
}

func (k *task) start() {
	k.t.Helper()
	if err := k.Start(k.ctx); err != nil {
		k.t.Fatal(err)
	}
}

// remove removes the task and the container in any state. The test may have deleted the task already.
func (k *task) remove() {
	if k.Task != nil {
		_, err := k.Task.Delete(k.ctx, client.WithProcessKill)
		if err != nil && !errdefs.IsNotFound(err) {
			k.t.Errorf("deleting task %s: %v", k.container.ID(), err)
		}
	}
	if err := k.container.Delete(k.ctx, client.WithSnapshotCleanup); err != nil && !errdefs.IsNotFound(err) {
		k.t.Errorf("deleting container %s: %v", k.container.ID(), err)
	}
}

// taskPatience limits every wait of these tests. Most waits take milliseconds. On a busy machine, a process at
// low priority such as wasm-client keep takes much longer.
const taskPatience = 3 * time.Minute

// code waits for the end of the task and returns its exit code.
func (k *task) code() uint32 {
	k.t.Helper()
	return codeOf(k.t, k.exited)
}

func codeOf(t testing.TB, exited <-chan client.ExitStatus) uint32 {
	t.Helper()
	select {
	case status := <-exited:
		if status.Error() != nil {
			t.Fatal(status.Error())
		}
		return status.ExitCode()
	case <-time.After(taskPatience):
		t.Fatal("the process does not end")
		return 0
	}
}

// expectCode waits for the end of the task and checks its exit code.
func (k *task) expectCode(want uint32) {
	k.t.Helper()
	if got := k.code(); got != want {
		k.t.Errorf("%s ended with %d, want %d; it printed %q", k.container.ID(), got, want, k.output)
	}
}

// ctr runs one of ctr's task commands, which must succeed, and returns the command's output.
func (k *task) ctr(args ...string) string {
	k.t.Helper()
	result := k.node.Ctr(k.t, append([]string{"tasks"}, args...)...)
	if result.Code != 0 {
		k.t.Errorf("ctr tasks %s: %+v", strings.Join(args, " "), result)
	}
	return result.Stdout
}

func (k *task) status() client.ProcessStatus {
	k.t.Helper()
	status, err := k.Status(k.ctx)
	if err != nil {
		k.t.Fatal(err)
	}
	return status.Status
}

func (k *task) expectStatus(want client.ProcessStatus) {
	k.t.Helper()
	if got := k.status(); got != want {
		k.t.Errorf("%s is %s, want %s", k.container.ID(), got, want)
	}
}

// exec adds a process to the task and starts that process. change may be nil.
func (k *task) exec(args []string, change func(*specs.Process), streams ...cio.Opt) *execution {
	k.t.Helper()
	e := k.addExec(args, change, streams...)
	if err := e.Start(k.ctx); err != nil {
		k.t.Fatal(err)
	}
	return e
}

// execLoop runs an exec of "loop", and ends it when its output has arrived.
func (k *task) execLoop() {
	k.t.Helper()
	e := k.exec(k.way.programs["loop"], nil)
	e.output.await(k.t, "looping")
	if err := e.Kill(k.ctx, syscall.SIGTERM); err != nil {
		k.t.Fatal(err)
	}
	if code, _ := k.finish(e); code != 143 {
		k.t.Errorf("exec in %s: it ended with %d", k.container.ID(), code)
	}
}

// execution is an exec of a task, deleted at the end of its test.
type execution struct {
	client.Process
	output *output
	exited <-chan client.ExitStatus
}

func (k *task) addExec(args []string, change func(*specs.Process), streams ...cio.Opt) *execution {
	k.t.Helper()
	spec, err := k.container.Spec(k.ctx)
	if err != nil {
		k.t.Fatal(err)
	}
	process := spec.Process
	process.Args = args
	if change != nil {
		change(process)
	}
	e := &execution{output: &output{}}
	streams = append([]cio.Opt{cio.WithStreams(nil, e.output, e.output)}, streams...)
	e.Process, err = k.Exec(k.ctx, fmt.Sprintf("exec-%d", lastTask.Add(1)), process, cio.NewCreator(streams...))
	if err != nil {
		k.t.Fatal(err)
	}
	k.t.Cleanup(func() {
		_, err := e.Delete(k.ctx, client.WithProcessKill)
		if err != nil && !errdefs.IsNotFound(err) {
			k.t.Errorf("deleting %s of %s: %v", e.ID(), k.container.ID(), err)
		}
	})
	if e.exited, err = e.Wait(k.ctx); err != nil {
		k.t.Fatal(err)
	}
	return e
}

// finish waits for the end of an exec, and deletes it to wait for all of its output.
func (k *task) finish(e *execution) (uint32, string) {
	k.t.Helper()
	code := codeOf(k.t, e.exited)
	if _, err := e.Delete(k.ctx); err != nil {
		k.t.Error(err)
	}
	return code, e.output.String()
}

// usage holds the resource usage that containerd reports for a task, from either version of cgroups.
type usage struct {
	CPU, Memory, Pids, Throttled uint64 // ns or µs, bytes, processes, periods
}

func (k *task) usage() usage {
	k.t.Helper()
	metric, err := k.Metrics(k.ctx)
	if err != nil {
		k.t.Fatal(err)
	}
	data, err := typeurl.UnmarshalAny(metric.Data)
	if err != nil {
		k.t.Fatal(err)
	}
	switch m := data.(type) {
	case *stats1.Metrics:
		return usage{m.CPU.Usage.Total, m.Memory.Usage.Usage, m.Pids.Current, m.CPU.Throttling.ThrottledPeriods}
	case *stats2.Metrics:
		return usage{m.CPU.UsageUsec, m.Memory.Usage, m.Pids.Current, m.CPU.NrThrottled}
	}
	k.t.Fatalf("metrics of type %T", data)
	return usage{}
}

// limit reads a file of the task's cgroup: on v1 below its controller, else on v2.
func (k *task) limit(controller, v1, v2 string) string {
	k.t.Helper()
	const root = "/sys/fs/cgroup"
	path := filepath.Join(root, k.node.Namespace, k.container.ID(), v2)
	if _, err := os.Stat(filepath.Join(root, "cgroup.controllers")); errors.Is(err, os.ErrNotExist) {
		path = filepath.Join(root, controller, k.node.Namespace, k.container.ID(), v1)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		k.t.Fatal(err)
	}
	return strings.TrimSpace(string(text))
}

// output collects what a process prints.
type output struct{ testoutput.Buffer }

// await returns when the output holds text.
func (o *output) await(t testing.TB, text string) {
	t.Helper()
	waitFor(t, func() bool { return strings.Contains(o.String(), text) }, "%q in the output %q", text, o)
}

// waitFor returns when condition returns true, and fails the test after taskPatience.
func waitFor(t testing.TB, condition func() bool, what string, args ...any) {
	t.Helper()
	deadline := time.NewTimer(taskPatience)
	defer deadline.Stop()
	again := time.NewTicker(5 * time.Millisecond)
	defer again.Stop()
	for !condition() {
		select {
		case <-again.C:
		case <-deadline.C:
			t.Fatalf("waited in vain for "+what, args...)
		}
	}
}

// stop ends the task and deletes it.
func (k *task) stop() {
	k.t.Helper()
	if err := k.Kill(k.ctx, syscall.SIGKILL); err != nil {
		k.t.Fatal(err)
	}
	k.expectCode(137)
	if _, err := k.Delete(k.ctx); err != nil {
		k.t.Fatal(err)
	}
}

// alive reports whether a process exists and has not ended.
func alive(pid uint32) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	_, rest, _ := strings.Cut(string(stat[bytes.LastIndexByte(stat, ')'):]), " ")
	return !strings.HasPrefix(rest, "Z")
}

package test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	taskapi "github.com/containerd/containerd/api/runtime/task/v2"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/ttrpc"
	"github.com/containerd/typeurl/v2"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/wasmshim/containerd-shim-wasm/internal/testnode"
)

// callPatience is the time limit for a call of the task API. A call that takes longer hangs.
const callPatience = 20 * time.Second

// caller calls a task's shim directly, because containerd refuses some of these calls itself.
type caller struct {
	k       *task
	client  *ttrpc.Client
	service string
	ctx     context.Context
	id      string
}

func (k *task) caller() *caller {
	k.t.Helper()
	address, version := k.shimAddress()
	connection, err := net.Dial("unix", address)
	if err != nil {
		k.t.Fatal(err)
	}
	c := ttrpc.NewClient(connection)
	k.t.Cleanup(func() { c.Close() })
	return &caller{
		k: k, client: c, service: fmt.Sprintf("containerd.task.v%d.Task", version),
		ctx: namespaces.WithNamespace(context.Background(), k.node.Namespace), id: k.container.ID(),
	}
}

// shimAddress returns the address of the task's shim and the version of the API there. containerd stores both
// for its own restart: in JSON, or on 1.7 only the address, with version 2.
func (k *task) shimAddress() (path string, version int) {
	k.t.Helper()
	bundle := k.node.Bundle(k.container.ID())
	found := struct {
		Address string `json:"address"`
		Version int    `json:"version"`
	}{Version: 2}
	text, err := os.ReadFile(filepath.Join(bundle, "bootstrap.json"))
	if err == nil {
		err = json.Unmarshal(text, &found)
	} else if text, err = os.ReadFile(filepath.Join(bundle, "address")); err == nil {
		found.Address = string(text)
	}
	if err != nil {
		k.t.Fatal(err)
	}
	return strings.TrimPrefix(found.Address, "unix://"), found.Version
}

// call makes one call and returns the kind of result: "ok", the status from State, or the error's code. It
// returns "refused" for a call that is not allowed in the task's state, because the stock shim returns such
// errors without a code of their own.
func (c *caller) call(name, exec string) string {
	ctx, cancel := context.WithTimeout(c.ctx, callPatience)
	defer cancel()
	answer, err := c.dispatch(ctx, name, exec)
	switch code := status.Code(err); {
	case err == nil:
		return answer
	case errors.Is(err, context.DeadlineExceeded), code == codes.DeadlineExceeded:
		c.dump()
		return "HANGS"
	case errors.Is(err, ttrpc.ErrClosed):
		return "THE SHIM IS GONE"
	case code == codes.NotFound, code == codes.AlreadyExists:
		return code.String()
	case (name == "kill" || name == "ask") && code == codes.FailedPrecondition:
		return code.String() // containerd's client depends on this code
	}
	return "refused"
}

// dump ends a hanging daemon and prints the stacks of its goroutines.
func (c *caller) dump() {
	state, err := os.Stat(c.k.node.Log())
	if err != nil {
		c.k.t.Fatal(err)
	}
	shim := c.k.connect().ShimPid
	if err := syscall.Kill(int(shim), syscall.SIGQUIT); err != nil {
		c.k.t.Fatal(err)
	}
	waitFor(c.k.t, func() bool { return !alive(shim) }, "the end of shim %d", shim)
	c.k.t.Errorf("the shim of %s hangs:\n%s", c.id, c.k.node.LogTail(state.Size(), 1000))
}

func (c *caller) dispatch(ctx context.Context, name, exec string) (string, error) {
	method, request := c.request(name, exec)
	if name == "state" {
		state := &taskapi.StateResponse{}
		err := c.client.Call(ctx, c.service, method, request, state)
		return state.GetStatus().String(), err
	}
	// The test needs no field of the other responses, so an empty message is sufficient.
	return "ok", c.client.Call(ctx, c.service, method, request, &emptypb.Empty{})
}

func (c *caller) request(name, exec string) (method string, request any) {
	switch name {
	case "start":
		return "Start", &taskapi.StartRequest{ID: c.id, ExecID: exec}
	case "delete":
		return "Delete", &taskapi.DeleteRequest{ID: c.id, ExecID: exec}
	case "state":
		return "State", &taskapi.StateRequest{ID: c.id, ExecID: exec}
	case "exec":
		return "Exec", &taskapi.ExecProcessRequest{ID: c.id, ExecID: exec, Spec: c.process()}
	case "kill":
		return "Kill", &taskapi.KillRequest{ID: c.id, ExecID: exec, Signal: uint32(syscall.SIGKILL)}
	case "ask":
		return "Kill", &taskapi.KillRequest{ID: c.id, ExecID: exec, Signal: uint32(syscall.SIGWINCH)}
	case "wait":
		return "Wait", &taskapi.WaitRequest{ID: c.id, ExecID: exec}
	case "pause":
		return "Pause", &taskapi.PauseRequest{ID: c.id}
	case "resume":
		return "Resume", &taskapi.ResumeRequest{ID: c.id}
	case "pids":
		return "Pids", &taskapi.PidsRequest{ID: c.id}
	case "closeIO":
		return "CloseIO", &taskapi.CloseIORequest{ID: c.id, ExecID: exec, Stdin: true}
	case "resize":
		return "ResizePty", &taskapi.ResizePtyRequest{ID: c.id, ExecID: exec, Width: 80, Height: 25}
	case "connect":
		return "Connect", &taskapi.ConnectRequest{ID: c.id}
	}
	c.k.t.Fatalf("no call %q", name)
	return "", nil
}

// process returns the process of an exec that keeps running.
func (c *caller) process() *anypb.Any {
	spec, err := c.k.container.Spec(c.k.ctx)
	if err != nil {
		c.k.t.Fatal(err)
	}
	process := *spec.Process
	process.Args = c.k.way.programs["sleep"]
	encoded, err := typeurl.MarshalAny(&specs.Process{
		Args: process.Args, Cwd: process.Cwd, Env: process.Env, User: process.User, Capabilities: process.Capabilities, NoNewPrivileges: process.NoNewPrivileges,
	})
	if err != nil {
		c.k.t.Fatal(err)
	}
	return &anypb.Any{TypeUrl: encoded.GetTypeUrl(), Value: encoded.GetValue()}
}

// expect makes calls one after the other, each given as "call" or "call EXEC", and compares the results with
// the wanted ones.
func (c *caller) expect(wanted ...[2]string) {
	c.k.t.Helper()
	for _, w := range wanted {
		name, exec, _ := strings.Cut(w[0], " ")
		if got := c.call(name, exec); got != w[1] {
			c.k.t.Errorf("%s of %s: %s, want %s", w[0], c.id, got, w[1])
		}
	}
}

// model tracks enough of a task's state to choose useful calls. It omits calls in which our shim must not
// behave like the stock shim: execs of a task that has not been started, which the stock shim accepts; states
// and signals of execs in a paused container; the state of an exec whose start has failed, which the stock shim
// reports as created; and further starts of an exec, after which the stock shim counts the exec's exit twice
// and crashes at the container's exit.
type model struct {
	random *rand.Rand
	task   string            // created, running, paused, stopped
	execs  map[string]string // added, running, stopped, failed
	next   int
}

func (m *model) calls() []string {
	calls := []string{"state", "pids", "connect", "start", "pause", "resume", "closeIO", "resize"}
	if m.task != "stopped" {
		calls = append(calls, "ask")
	}
	if m.task == "running" || m.task == "paused" {
		calls = append(calls, "exec", "exec", "delete")
	}
	if m.random.IntN(8) == 0 {
		calls = append(calls, "kill", "kill")
	}
	for exec, state := range m.execs {
		of := []string{"delete"}
		switch {
		case m.task == "paused":
			of = append(of, "closeIO")
		case m.task == "running" && state != "failed":
			of = append(of, "state", "kill", "closeIO", "resize")
		}
		if state == "added" {
			of = append(of, "start", "start", "start")
		}
		for _, call := range of {
			calls = append(calls, call+" "+exec)
		}
	}
	return calls
}

// happened applies the effect of a call to which both shims have returned the same result.
func (m *model) happened(name, exec, answer string) {
	if name == "start" && exec != "" && m.execs[exec] == "added" && answer != "ok" {
		m.execs[exec] = "failed"
	}
	if answer != "ok" {
		return
	}
	switch {
	case exec == "" && name == "start", name == "resume":
		m.task = "running"
	case name == "pause":
		m.task = "paused"
	case exec == "" && name == "kill":
		m.task = "stopped"
	case name == "exec":
		m.execs[exec] = "added"
	case name == "start":
		m.execs[exec] = "running"
	case name == "kill":
		m.execs[exec] = "stopped"
	case name == "delete":
		delete(m.execs, exec)
	}
}

// choose returns the next call.
func (m *model) choose() string {
	calls := m.calls()
	slices.Sort(calls)
	call := calls[m.random.IntN(len(calls))]
	if call == "exec" {
		m.next++
		call = fmt.Sprintf("exec e%d", m.next)
	}
	return call
}

// For any calls in any order, our shim returns the same results as the stock shim.
func TestCallsAreAnsweredAsByTheStockShim(t *testing.T) {
	eachVersionWithTasks(t, func(t *testing.T, node *testnode.Node) {
		for seed := range uint64(12) {
			t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
				ours, stock := asWasm.create(t, node, "sleep"), asStock.create(t, node, "sleep")
				compareCalls(t, seed, ours.caller(), stock.caller())
			})
		}
	})
}

func compareCalls(t *testing.T, seed uint64, ours, stock *caller) {
	m := &model{random: rand.New(rand.NewPCG(seed, 9)), task: "created", execs: map[string]string{}}
	var story []string
	for range 40 {
		call := m.choose()
		name, exec, _ := strings.Cut(call, " ")
		got, want := ours.call(name, exec), stock.call(name, exec)
		story = append(story, call+": "+want)
		if got != want {
			t.Fatalf("%s, want %s, after\n%s", got, want, strings.Join(story, "\n"))
		}
		m.happened(name, exec, want)
		if name == "kill" && want == "ok" {
			// Both shims have the new state only after the process has ended.
			ours.expect([2]string{"wait " + exec, "ok"})
			stock.expect([2]string{"wait " + exec, "ok"})
		}
		if m.task == "stopped" {
			break
		}
	}
	for _, c := range []*caller{ours, stock} {
		if m.task != "stopped" {
			c.expect([2]string{"kill", "ok"}, [2]string{"wait", "ok"})
		}
		c.expect([2]string{"state", "STOPPED"}, [2]string{"start", "refused"})
	}
}

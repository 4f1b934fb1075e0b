package shim

import (
	"context"

	tasks "github.com/containerd/containerd/api/runtime/task/v2"
	"github.com/containerd/ttrpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/emptypb"
)

// Versions 2 and 3 of the task API have the same methods and, byte for byte,
// the same messages (api/runtime/task/v{2,3}/shim.proto); only the service's
// name differs. So one table of methods is registered under both names, and the
// daemon is spared the gRPC package that the generated code of version 3 brings.
const (
	serviceV2 = "containerd.task.v2.Task"
	serviceV3 = "containerd.task.v3.Task"
)

// Register offers the service to containerd on server.
func (s *Service) Register(server *ttrpc.Server) {
	desc := &ttrpc.ServiceDesc{Methods: map[string]ttrpc.Method{
		"State":      method(forward(s, tasks.TTRPCTaskService.State)),
		"Create":     method(s.Create),
		"Start":      method(forward(s, tasks.TTRPCTaskService.Start)),
		"Delete":     method(s.Delete),
		"Pids":       method(forward(s, tasks.TTRPCTaskService.Pids)),
		"Pause":      method(forward(s, tasks.TTRPCTaskService.Pause)),
		"Resume":     method(forward(s, tasks.TTRPCTaskService.Resume)),
		"Checkpoint": method(forward(s, tasks.TTRPCTaskService.Checkpoint)),
		"Kill":       method(forward(s, tasks.TTRPCTaskService.Kill)),
		"Exec":       method(forward(s, tasks.TTRPCTaskService.Exec)),
		"ResizePty":  method(forward(s, tasks.TTRPCTaskService.ResizePty)),
		"CloseIO":    method(forward(s, tasks.TTRPCTaskService.CloseIO)),
		"Update":     method(forward(s, tasks.TTRPCTaskService.Update)),
		"Wait":       method(forward(s, tasks.TTRPCTaskService.Wait)),
		"Stats":      method(forward(s, tasks.TTRPCTaskService.Stats)),
		"Connect":    method(s.Connect),
		"Shutdown":   method(s.Shutdown),
	}}
	server.RegisterService(serviceV2, desc)
	server.RegisterService(serviceV3, desc)
}

// message is a pointer to a generated message type.
type message[T any] interface {
	*T
	proto.Message
}

// method decodes a request for a handler and makes an answer of its error.
func method[Q any, P any, RQ message[Q], RP message[P]](handle func(context.Context, RQ) (RP, error)) ttrpc.Method {
	return func(ctx context.Context, unmarshal func(any) error) (any, error) {
		request := RQ(new(Q))
		if err := unmarshal(request); err != nil {
			return nil, err
		}
		response, err := handle(ctx, request)
		if err != nil {
			return nil, answer(err)
		}
		return response, nil
	}
}

// addressed is a request that names a container.
type addressed interface{ GetID() string }

// forward hands a request to whoever serves the container it names.
func forward[Q addressed, P any](s *Service, call func(tasks.TTRPCTaskService, context.Context, Q) (P, error)) func(context.Context, Q) (P, error) {
	return func(ctx context.Context, request Q) (P, error) {
		var none P
		c, err := s.find(request.GetID())
		if err != nil {
			return none, err
		}
		return call(c, ctx, request)
	}
}

// remote is a task service behind a ttrpc connection, under either name.
type remote struct {
	client  *ttrpc.Client
	service string
}

func call[P any, RP message[P]](ctx context.Context, r *remote, name string, request any) (RP, error) {
	response := RP(new(P))
	if err := r.client.Call(ctx, r.service, name, request, response); err != nil {
		return nil, err
	}
	return response, nil
}

func (r *remote) State(ctx context.Context, q *tasks.StateRequest) (*tasks.StateResponse, error) {
	return call[tasks.StateResponse](ctx, r, "State", q)
}

func (r *remote) Create(ctx context.Context, q *tasks.CreateTaskRequest) (*tasks.CreateTaskResponse, error) {
	return call[tasks.CreateTaskResponse](ctx, r, "Create", q)
}

func (r *remote) Start(ctx context.Context, q *tasks.StartRequest) (*tasks.StartResponse, error) {
	return call[tasks.StartResponse](ctx, r, "Start", q)
}

func (r *remote) Delete(ctx context.Context, q *tasks.DeleteRequest) (*tasks.DeleteResponse, error) {
	return call[tasks.DeleteResponse](ctx, r, "Delete", q)
}

func (r *remote) Pids(ctx context.Context, q *tasks.PidsRequest) (*tasks.PidsResponse, error) {
	return call[tasks.PidsResponse](ctx, r, "Pids", q)
}

func (r *remote) Pause(ctx context.Context, q *tasks.PauseRequest) (*emptypb.Empty, error) {
	return call[emptypb.Empty](ctx, r, "Pause", q)
}

func (r *remote) Resume(ctx context.Context, q *tasks.ResumeRequest) (*emptypb.Empty, error) {
	return call[emptypb.Empty](ctx, r, "Resume", q)
}

func (r *remote) Checkpoint(ctx context.Context, q *tasks.CheckpointTaskRequest) (*emptypb.Empty, error) {
	return call[emptypb.Empty](ctx, r, "Checkpoint", q)
}

func (r *remote) Kill(ctx context.Context, q *tasks.KillRequest) (*emptypb.Empty, error) {
	return call[emptypb.Empty](ctx, r, "Kill", q)
}

func (r *remote) Exec(ctx context.Context, q *tasks.ExecProcessRequest) (*emptypb.Empty, error) {
	return call[emptypb.Empty](ctx, r, "Exec", q)
}

func (r *remote) ResizePty(ctx context.Context, q *tasks.ResizePtyRequest) (*emptypb.Empty, error) {
	return call[emptypb.Empty](ctx, r, "ResizePty", q)
}

func (r *remote) CloseIO(ctx context.Context, q *tasks.CloseIORequest) (*emptypb.Empty, error) {
	return call[emptypb.Empty](ctx, r, "CloseIO", q)
}

func (r *remote) Update(ctx context.Context, q *tasks.UpdateTaskRequest) (*emptypb.Empty, error) {
	return call[emptypb.Empty](ctx, r, "Update", q)
}

func (r *remote) Wait(ctx context.Context, q *tasks.WaitRequest) (*tasks.WaitResponse, error) {
	return call[tasks.WaitResponse](ctx, r, "Wait", q)
}

func (r *remote) Stats(ctx context.Context, q *tasks.StatsRequest) (*tasks.StatsResponse, error) {
	return call[tasks.StatsResponse](ctx, r, "Stats", q)
}

func (r *remote) Connect(ctx context.Context, q *tasks.ConnectRequest) (*tasks.ConnectResponse, error) {
	return call[tasks.ConnectResponse](ctx, r, "Connect", q)
}

func (r *remote) Shutdown(ctx context.Context, q *tasks.ShutdownRequest) (*emptypb.Empty, error) {
	return call[emptypb.Empty](ctx, r, "Shutdown", q)
}

package remote

import (
	"context"

	tasks "github.com/containerd/containerd/api/runtime/task/v2"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/emptypb"
)

// message is a pointer to a generated message type.
type message[T any] interface {
	*T
	proto.Message
}

func call[P any, RP message[P]](ctx context.Context, r *Tasks, name string, request any) (RP, error) {
	response := RP(new(P))
	if err := r.client.Call(ctx, r.service, name, request, response); err != nil {
		return nil, err
	}
	return response, nil
}

func (r *Tasks) State(ctx context.Context, q *tasks.StateRequest) (*tasks.StateResponse, error) {
	return call[tasks.StateResponse](ctx, r, "State", q)
}

func (r *Tasks) Create(ctx context.Context, q *tasks.CreateTaskRequest) (*tasks.CreateTaskResponse, error) {
	return call[tasks.CreateTaskResponse](ctx, r, "Create", q)
}

func (r *Tasks) Start(ctx context.Context, q *tasks.StartRequest) (*tasks.StartResponse, error) {
	return call[tasks.StartResponse](ctx, r, "Start", q)
}

func (r *Tasks) Delete(ctx context.Context, q *tasks.DeleteRequest) (*tasks.DeleteResponse, error) {
	return call[tasks.DeleteResponse](ctx, r, "Delete", q)
}

func (r *Tasks) Pids(ctx context.Context, q *tasks.PidsRequest) (*tasks.PidsResponse, error) {
	return call[tasks.PidsResponse](ctx, r, "Pids", q)
}

func (r *Tasks) Pause(ctx context.Context, q *tasks.PauseRequest) (*emptypb.Empty, error) {
	return call[emptypb.Empty](ctx, r, "Pause", q)
}

func (r *Tasks) Resume(ctx context.Context, q *tasks.ResumeRequest) (*emptypb.Empty, error) {
	return call[emptypb.Empty](ctx, r, "Resume", q)
}

func (r *Tasks) Checkpoint(ctx context.Context, q *tasks.CheckpointTaskRequest) (*emptypb.Empty, error) {
	return call[emptypb.Empty](ctx, r, "Checkpoint", q)
}

func (r *Tasks) Kill(ctx context.Context, q *tasks.KillRequest) (*emptypb.Empty, error) {
	return call[emptypb.Empty](ctx, r, "Kill", q)
}

func (r *Tasks) Exec(ctx context.Context, q *tasks.ExecProcessRequest) (*emptypb.Empty, error) {
	return call[emptypb.Empty](ctx, r, "Exec", q)
}

func (r *Tasks) ResizePty(ctx context.Context, q *tasks.ResizePtyRequest) (*emptypb.Empty, error) {
	return call[emptypb.Empty](ctx, r, "ResizePty", q)
}

func (r *Tasks) CloseIO(ctx context.Context, q *tasks.CloseIORequest) (*emptypb.Empty, error) {
	return call[emptypb.Empty](ctx, r, "CloseIO", q)
}

func (r *Tasks) Update(ctx context.Context, q *tasks.UpdateTaskRequest) (*emptypb.Empty, error) {
	return call[emptypb.Empty](ctx, r, "Update", q)
}

func (r *Tasks) Wait(ctx context.Context, q *tasks.WaitRequest) (*tasks.WaitResponse, error) {
	return call[tasks.WaitResponse](ctx, r, "Wait", q)
}

func (r *Tasks) Stats(ctx context.Context, q *tasks.StatsRequest) (*tasks.StatsResponse, error) {
	return call[tasks.StatsResponse](ctx, r, "Stats", q)
}

func (r *Tasks) Connect(ctx context.Context, q *tasks.ConnectRequest) (*tasks.ConnectResponse, error) {
	return call[tasks.ConnectResponse](ctx, r, "Connect", q)
}

func (r *Tasks) Shutdown(ctx context.Context, q *tasks.ShutdownRequest) (*emptypb.Empty, error) {
	return call[emptypb.Empty](ctx, r, "Shutdown", q)
}

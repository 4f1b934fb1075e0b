package shim

import (
	"context"

	tasks "github.com/containerd/containerd/api/runtime/task/v2"
	"github.com/containerd/ttrpc"
	"google.golang.org/protobuf/proto"

	"github.com/wasmshim/containerd-shim-wasm/shim/remote"
)

// register offers the service to containerd on server, as both versions of the task API.
func (s *service) register(server *ttrpc.Server) {
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
	server.RegisterService(remote.ServiceV2, desc)
	server.RegisterService(remote.ServiceV3, desc)
	server.RegisterService(remote.ServiceArtifacts, &ttrpc.ServiceDesc{Methods: map[string]ttrpc.Method{"List": method(s.listArtifacts)}})
}

// message is a pointer to a generated message type.
type message[T any] interface {
	*T
	proto.Message
}

// method decodes a request for a handler and turns its error into an answer.
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

// forward passes a request to the task service of the container that it names.
func forward[Q addressed, P any](s *service, call func(tasks.TTRPCTaskService, context.Context, Q) (P, error)) func(context.Context, Q) (P, error) {
	return func(ctx context.Context, request Q) (P, error) {
		var none P
		c, err := s.find(request.GetID())
		if err != nil {
			return none, err
		}
		return call(c, ctx, request)
	}
}

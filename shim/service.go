// Package shim is the daemon's side of containerd's task API: it decides for
// each container whether it is Wasm or native, starts Wasm containers and the
// pause containers of pods in a sandbox, and forwards native ones to the node's own
// containerd-shim-runc-v2.
//
// It runs no guest code, compiles nothing, and opens no path chosen by a guest
// but through package sandbox.
package shim

import (
	"context"
	"os"
	"sync"
	"time"

	tasks "github.com/containerd/containerd/api/runtime/task/v2"
	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"
	"google.golang.org/protobuf/types/known/emptypb"
)

// Service is the task service of one shim: of one pod, or of one container
// outside a pod.
type Service struct {
	node     *node
	events   *events
	native   *nativeShim
	shutdown func()
	calm     *time.Timer // see settle

	mu         sync.Mutex
	containers map[string]tasks.TTRPCTaskService
}

var empty = &emptypb.Empty{}

// find returns who serves the container with that id.
func (s *Service) find(id string) (tasks.TTRPCTaskService, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c, ok := s.containers[id]
	if _, creating := c.(unborn); !ok || creating {
		return nil, errgrpc.ToGRPCf(errdefs.ErrNotFound, "container %s not created", id)
	}
	return c, nil
}

// Create decides what the container is and creates it.
func (s *Service) Create(ctx context.Context, r *tasks.CreateTaskRequest) (*tasks.CreateTaskResponse, error) {
	if !s.reserve(r.ID) {
		return nil, errgrpc.ToGRPCf(errdefs.ErrAlreadyExists, "container %s", r.ID)
	}
	c, response, err := s.create(ctx, r)
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil {
		delete(s.containers, r.ID)
		s.node.log.WithField("container", r.ID).WithError(err).Error("create failed")
		return nil, errgrpc.ToGRPC(err)
	}
	s.containers[r.ID] = c
	s.settle()
	return response, nil
}

// reserve keeps an id from being created twice.
func (s *Service) reserve(id string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.containers[id]; ok {
		return false
	}
	s.containers[id] = unborn{}
	return true
}

func (s *Service) create(ctx context.Context, r *tasks.CreateTaskRequest) (tasks.TTRPCTaskService, *tasks.CreateTaskResponse, error) {
	c, err := s.node.createWasm(ctx, r, s.events)
	if err == nil {
		return c, &tasks.CreateTaskResponse{Pid: uint32(c.init.pid())}, nil
	}
	if !isNative(err) {
		return nil, nil, err
	}
	response, err := s.native.create(ctx, r)
	return nativeContainer{s.native, r.Bundle}, response, err
}

// Delete removes an exec or a container.
func (s *Service) Delete(ctx context.Context, r *tasks.DeleteRequest) (*tasks.DeleteResponse, error) {
	c, err := s.find(r.ID)
	if err != nil {
		return nil, err
	}
	response, err := c.Delete(ctx, r)
	// One that the stock shim no longer knows was deleted by a call whose answer came
	// too late for containerd, which asks again. Kept, it would keep the pod's shims.
	if r.ExecID == "" && (err == nil || errdefs.IsNotFound(errgrpc.ToNative(err))) {
		s.mu.Lock()
		delete(s.containers, r.ID)
		s.mu.Unlock()
	}
	if err != nil {
		return nil, errgrpc.ToGRPC(err)
	}
	return response, nil
}

// Connect tells the shim's and the task's process ids.
func (s *Service) Connect(ctx context.Context, r *tasks.ConnectRequest) (*tasks.ConnectResponse, error) {
	response := &tasks.ConnectResponse{ShimPid: uint32(os.Getpid())}
	c, err := s.find(r.ID)
	if err != nil {
		return response, nil // containerd asks before it creates
	}
	theirs, err := c.Connect(ctx, r)
	if err != nil {
		return nil, errgrpc.ToGRPC(err)
	}
	response.TaskPid = theirs.TaskPid
	return response, nil
}

// Shutdown ends the shim when no container is left.
func (s *Service) Shutdown(ctx context.Context, r *tasks.ShutdownRequest) (*emptypb.Empty, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.containers) > 0 {
		return empty, nil
	}
	s.native.end(ctx, r)
	s.shutdown()
	return empty, nil
}

// unborn holds the id of a container that is being created. It knows nothing
// and can do nothing yet.
type unborn struct{ tasks.TTRPCTaskService }

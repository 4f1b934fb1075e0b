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
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	tasks "github.com/containerd/containerd/api/runtime/task/v2"
	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/wasmshim/containerd-shim-wasm/artifact/request"
	"github.com/wasmshim/containerd-shim-wasm/shim/stock"
)

// service is the task service of one shim: of one pod, or of one container
// outside a pod.
type service struct {
	daemon   *daemon
	events   *events
	native   *stock.Shim
	shutdown func()
	calm     *time.Timer // see settle

	mu         sync.Mutex
	containers map[string]tasks.TTRPCTaskService
	leaving    bool // containerd has said Shutdown since a container was last created
}

var empty = &emptypb.Empty{}

// find returns the task service of the container with that id.
func (s *service) find(id string) (tasks.TTRPCTaskService, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c, ok := s.containers[id]
	if _, creating := c.(unborn); !ok || creating {
		return nil, fmt.Errorf("container %s not created: %w", id, errdefs.ErrNotFound)
	}
	return c, nil
}

// Create decides whether the container is Wasm or native, and creates it.
func (s *service) Create(ctx context.Context, r *tasks.CreateTaskRequest) (*tasks.CreateTaskResponse, error) {
	ctx, giveUp := context.WithCancel(ctx)
	defer giveUp()
	if !s.reserve(r.ID, giveUp) {
		return nil, fmt.Errorf("container %s: %w", r.ID, errdefs.ErrAlreadyExists)
	}
	c, response, err := s.create(ctx, r)
	if s.keep(ctx, r.ID, c, err) {
		return response, nil
	}
	if err == nil {
		err = fmt.Errorf("container %s was given up while it was created: %w", r.ID, context.Cause(ctx))
		s.discard(r.ID, c)
	}
	s.daemon.log.WithField("container", r.ID).WithError(err).Error("create container")
	s.release(r.ID)
	return nil, err
}

// reserve reserves an id, so that it is not created twice. giveUp cancels its creation.
func (s *service) reserve(id string, giveUp context.CancelFunc) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.containers[id]; ok {
		return false
	}
	s.containers[id] = unborn{giveUp: giveUp}
	return true
}

// keep adds a created container, unless its caller has given up.
func (s *service) keep(ctx context.Context, id string, c tasks.TTRPCTaskService, err error) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil || ctx.Err() != nil {
		return false
	}
	s.containers[id] = c
	s.leaving = false
	s.settle()
	return true
}

// release frees a reserved id, and ends the shim if Shutdown came while the id was reserved.
func (s *service) release(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.containers, id)
	if s.leaving {
		ctx, cancel := context.WithTimeout(context.Background(), stopLimit)
		defer cancel()
		s.endIfUnused(ctx, &tasks.ShutdownRequest{ID: id})
	}
}

// discard removes a container that no caller knows of.
func (s *service) discard(id string, c tasks.TTRPCTaskService) {
	ctx, cancel := context.WithTimeout(context.Background(), discardLimit)
	defer cancel()
	_, killErr := c.Kill(ctx, &tasks.KillRequest{ID: id, Signal: uint32(unix.SIGKILL), All: true})
	_, waitErr := c.Wait(ctx, &tasks.WaitRequest{ID: id})
	if _, err := c.Delete(ctx, &tasks.DeleteRequest{ID: id}); err != nil {
		s.daemon.log.WithField("container", id).WithError(errors.Join(err, killErr, waitErr)).Warn("remove a container that nobody waits for: its processes or its cgroup may be left")
	}
}

// discardLimit bounds the removal of a container that was given up.
const discardLimit = time.Minute

func (s *service) create(ctx context.Context, r *tasks.CreateTaskRequest) (tasks.TTRPCTaskService, *tasks.CreateTaskResponse, error) {
	c, err := s.daemon.createWasm(ctx, r, s.events)
	if err == nil {
		return c, &tasks.CreateTaskResponse{Pid: uint32(c.init.pid())}, nil
	}
	if !isNative(err) {
		return nil, nil, err
	}
	response, err := s.createNative(ctx, r)
	return stock.Container{Shim: s.native, Bundle: r.Bundle}, response, err
}

// createNative makes the stock shim create the container.
func (s *service) createNative(ctx context.Context, r *tasks.CreateTaskRequest) (*tasks.CreateTaskResponse, error) {
	options, err := s.daemon.nativeOptions(r.Options, r.Bundle)
	if err != nil {
		return nil, err
	}
	r.Options = options
	spec, _, err := loadSpec(r.Bundle)
	if err != nil {
		return nil, err
	}
	if err := s.daemon.workflow.Load().prepare(ctx, spec); err != nil {
		return nil, err
	}
	if request.Asked(spec.Annotations) && !isPause(spec) {
		s.daemon.log.WithField("container", r.ID).Warn("the pod asks for artifacts by annotation, which this container does not get: it is native, and only Wasm containers do")
	}
	group, err := groupOf(r.Bundle, r.ID)
	if err != nil {
		return nil, err
	}
	if err := s.native.Prepare(group, r.Bundle); err != nil {
		return nil, err
	}
	return s.native.Create(ctx, r)
}

// Delete removes an exec or a container.
func (s *service) Delete(ctx context.Context, r *tasks.DeleteRequest) (*tasks.DeleteResponse, error) {
	if r.ExecID == "" {
		s.giveUp(r.ID)
	}
	c, err := s.find(r.ID)
	if err != nil {
		return nil, err
	}
	response, err := c.Delete(ctx, r)
	// A container that the stock shim no longer knows was deleted by a call whose answer came too late for
	// containerd, which then asks again. Keeping it would keep the pod's shims.
	if r.ExecID == "" && (err == nil || errdefs.IsNotFound(errgrpc.ToNative(err))) {
		s.mu.Lock()
		delete(s.containers, r.ID)
		s.mu.Unlock()
	}
	return response, err
}

// giveUp cancels the creation of a container, if there is one with that id: containerd also deletes
// containers that it no longer waits for, and then ends the shim.
func (s *service) giveUp(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c, creating := s.containers[id].(unborn); creating {
		c.giveUp()
	}
}

// Connect returns the shim's and the task's process ids.
func (s *service) Connect(ctx context.Context, r *tasks.ConnectRequest) (*tasks.ConnectResponse, error) {
	response := &tasks.ConnectResponse{ShimPid: uint32(os.Getpid())}
	c, err := s.find(r.ID)
	if err != nil {
		return response, nil // containerd asks before it creates
	}
	theirs, err := c.Connect(ctx, r)
	if err != nil {
		return nil, err
	}
	response.TaskPid = theirs.TaskPid
	return response, nil
}

// Shutdown ends the shim when no container is left. If it comes while a container is being created, the shim
// ends once that creation has been given up, because containerd does not ask again.
func (s *service) Shutdown(ctx context.Context, r *tasks.ShutdownRequest) (*emptypb.Empty, error) {
	s.giveUp(r.ID)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.leaving = true
	s.endIfUnused(ctx, r)
	return empty, nil
}

func (s *service) endIfUnused(ctx context.Context, r *tasks.ShutdownRequest) {
	if len(s.containers) > 0 {
		return
	}
	s.native.End(ctx, r)
	s.shutdown()
}

// unborn holds the id of a container that is being created. It has no state and serves no request.
type unborn struct {
	tasks.TTRPCTaskService
	giveUp context.CancelFunc
}

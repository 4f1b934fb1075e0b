package shim

import (
	"context"
	"encoding/json"
	"fmt"

	tasks "github.com/containerd/containerd/api/runtime/task/v2"
	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/emptypb"
)

// Update changes the container's limits.
func (c *container) Update(_ context.Context, r *tasks.UpdateTaskRequest) (*emptypb.Empty, error) {
	var resources specs.LinuxResources
	if err := json.Unmarshal(r.Resources.GetValue(), &resources); err != nil {
		return nil, fmt.Errorf("decode resources for container %s: %w", c.id, err)
	}
	if c.init.now().isOver() {
		return nil, fmt.Errorf("cannot update a stopped container: %s: %w", c.id, errdefs.ErrFailedPrecondition)
	}
	if err := c.cgroup.Update(&resources); err != nil {
		return nil, fmt.Errorf("update container %s: %w", c.id, err)
	}
	return empty, nil
}

// Stats returns what the container uses, in the types that the stock shim returns.
func (c *container) Stats(context.Context, *tasks.StatsRequest) (*tasks.StatsResponse, error) {
	stats, err := c.cgroup.Stats()
	if err != nil {
		return nil, fmt.Errorf("read statistics of container %s: %w", c.id, err)
	}
	message, ok := stats.(proto.Message)
	if !ok {
		return nil, fmt.Errorf("statistics of container %s: unexpected type %T", c.id, stats)
	}
	data, err := wrap(message)
	if err != nil {
		return nil, fmt.Errorf("encode statistics of container %s: %w", c.id, err)
	}
	return &tasks.StatsResponse{Stats: data}, nil
}

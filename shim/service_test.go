package shim

import (
	"context"
	"testing"

	tasks "github.com/containerd/containerd/api/runtime/task/v2"
	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"
)

// failing is a container whose deletion fails.
type failing struct {
	tasks.TTRPCTaskService
	err error
}

func (f failing) Delete(context.Context, *tasks.DeleteRequest) (*tasks.DeleteResponse, error) {
	return nil, f.err
}

// A shim ends once its containers are deleted, by whichever of containerd's tries, and not before.
func TestShutdownAfterFailedDeletion(t *testing.T) {
	for name, c := range map[string]struct {
		err  error
		exec string
		ends bool
	}{
		"the stock shim no longer knows it": {errgrpc.ToGRPCf(errdefs.ErrNotFound, "container not created"), "", true},
		"it knows no such exec":             {errgrpc.ToGRPCf(errdefs.ErrNotFound, "process does not exist"), "exec", false},
		"it runs":                           {errgrpc.ToGRPCf(errdefs.ErrFailedPrecondition, "running"), "", false},
		"no answer in time":                 {context.DeadlineExceeded, "", false},
	} {
		t.Run(name, func(t *testing.T) {
			ended := false
			s := &Service{native: &nativeShim{}, shutdown: func() { ended = true }, containers: map[string]tasks.TTRPCTaskService{"c": failing{err: c.err}}}
			_, err := s.Delete(t.Context(), &tasks.DeleteRequest{ID: "c", ExecID: c.exec})
			if want, got := errgrpc.ToNative(errgrpc.ToGRPC(c.err)), errgrpc.ToNative(err); errdefs.IsNotFound(got) != errdefs.IsNotFound(want) || got == nil {
				t.Errorf("containerd is told %v, want %v", got, want)
			}
			if _, err := s.Shutdown(t.Context(), &tasks.ShutdownRequest{ID: "c"}); err != nil {
				t.Error(err)
			}
			if ended != c.ends {
				t.Errorf("the shim has ended: %v, want %v", ended, c.ends)
			}
		})
	}
}

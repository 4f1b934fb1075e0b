package shim

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	tasks "github.com/containerd/containerd/api/runtime/task/v2"
	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"
	"github.com/sirupsen/logrus"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/wasmshim/containerd-shim-wasm/shim/stock"
)

// failing is a container whose deletion fails.
type failing struct {
	tasks.TTRPCTaskService
	err error
}

func (f failing) Delete(context.Context, *tasks.DeleteRequest) (*tasks.DeleteResponse, error) {
	return nil, f.err
}

// A shim ends once its containers are deleted, whichever of containerd's attempts succeeds, and not before.
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
			s := &service{native: &stock.Shim{}, shutdown: func() { ended = true }, containers: map[string]tasks.TTRPCTaskService{"c": failing{err: c.err}}}
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

// A shim that gets Shutdown while a container is being created ends when that has failed or been given up,
// and stays when it has been created.
func TestShutdownDuringCreation(t *testing.T) {
	log := logrus.NewEntry(logrus.New())
	log.Logger.SetOutput(io.Discard)
	for name, c := range map[string]struct {
		told string // the id that Shutdown names
		err  error
		ends bool
	}{
		"given up":          {"c", nil, true},
		"failed":            {"another", errors.New("no such module"), true},
		"created":           {"another", nil, false},
		"never told to end": {"", errors.New("no such module"), false},
	} {
		t.Run(name, func(t *testing.T) {
			ended, discarded := false, false
			s := &service{daemon: &daemon{log: log}, native: &stock.Shim{}, shutdown: func() { ended = true }, calm: newCalm(), containers: map[string]tasks.TTRPCTaskService{}}
			ctx, giveUp := context.WithCancel(t.Context())
			defer giveUp()
			if !s.reserve("c", giveUp) {
				t.Fatal("the id is taken")
			}
			if c.told != "" {
				if _, err := s.Shutdown(t.Context(), &tasks.ShutdownRequest{ID: c.told}); err != nil || ended {
					t.Fatalf("ended: %v, %v", ended, err)
				}
			}
			made := doomed{deleted: &discarded}
			if !s.keep(ctx, "c", made, c.err) {
				if c.err == nil {
					s.discard("c", made)
				}
				s.release("c")
			}
			if ended != c.ends || discarded != (c.ends && c.err == nil) {
				t.Errorf("the shim has ended: %v, want %v; the container was removed: %v", ended, c.ends, discarded)
			}
		})
	}
}

// doomed is a container that records its deletion.
type doomed struct {
	tasks.TTRPCTaskService
	deleted *bool
}

func (doomed) Kill(context.Context, *tasks.KillRequest) (*emptypb.Empty, error)      { return empty, nil }
func (doomed) Wait(context.Context, *tasks.WaitRequest) (*tasks.WaitResponse, error) { return nil, nil }
func (d doomed) Delete(context.Context, *tasks.DeleteRequest) (*tasks.DeleteResponse, error) {
	*d.deleted = true
	return nil, nil
}

// containerd gets text of a few KiB, whatever names an image has.
func TestAnswersAreBounded(t *testing.T) {
	long := strings.Repeat("name ", 2<<20)
	for name, err := range map[string]error{
		"long":            errors.New(long),
		"long, of a kind": fmt.Errorf("%s: %w", long, errdefs.ErrNotFound),
		"joined":          errors.Join(fmt.Errorf("%s: %w", long, errdefs.ErrNotFound), fmt.Errorf("%s: %w", long, errdefs.ErrNotImplemented)),
		"mapped":          errgrpc.ToGRPC(fmt.Errorf("%s: %w", long, errdefs.ErrNotFound)),
		"not text":        errors.New("entry point \xff\xfe"),
	} {
		said, _ := status.FromError(answer(err))
		data, failed := proto.Marshal(said.Proto())
		if failed != nil || len(data) > 10<<10 {
			t.Errorf("%s: %d bytes, %v", name, len(data), failed)
		}
		if errdefs.IsNotFound(errgrpc.ToNative(errgrpc.ToGRPC(err))) != errdefs.IsNotFound(errgrpc.ToNative(said.Err())) {
			t.Errorf("%s became %.200v", name, said)
		}
	}
	if got := errgrpc.ToNative(answer(fmt.Errorf("container c: %w", errdefs.ErrNotFound))); !errdefs.IsNotFound(got) || got.Error() != "container c: not found" {
		t.Errorf("a short error became %v", got)
	}
}

func TestLogLinesAreBounded(t *testing.T) {
	var written bytes.Buffer
	log := logrus.New()
	log.SetOutput(&written)
	log.SetFormatter(shortLines{&logrus.TextFormatter{DisableColors: true}})
	log.WithError(errors.New(strings.Repeat("\x1b", 1<<20))).Error("create failed")
	log.Warn("short")
	lines := strings.Split(written.String(), "\n")
	if len(lines) != 3 || len(lines[0]) > 9<<10 || !strings.Contains(lines[0], "create failed") || !strings.HasSuffix(lines[1], "msg=short") {
		t.Errorf("%d lines: %.300q, %.300q", len(lines), lines[0], lines[1:])
	}
}

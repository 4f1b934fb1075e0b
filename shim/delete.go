package shim

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"

	tasks "github.com/containerd/containerd/api/runtime/task/v2"
	"github.com/sirupsen/logrus"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/wasmshim/containerd-shim-wasm/module"
	"github.com/wasmshim/containerd-shim-wasm/shim/remote"
	"github.com/wasmshim/containerd-shim-wasm/shim/stock"
)

// Delete is the delete verb. containerd runs it in a container's bundle when its connection to the daemon has
// ended, because the container is gone or because the daemon has died. It removes everything that is left.
func Delete(flags Flags, out io.Writer) error {
	bundle := flags.Bundle
	if bundle == "" {
		dir, err := os.Getwd()
		if err != nil {
			return fmt.Errorf("find bundle: %w", err)
		}
		bundle = dir
	}
	d := &daemon{flags: flags, log: logrus.NewEntry(logrus.StandardLogger())}
	response, err := d.delete(bundle)
	if err != nil {
		return err
	}
	data, err := proto.Marshal(response)
	if err != nil {
		return fmt.Errorf("encode response: %w", err)
	}
	_, err = out.Write(data)
	return err
}

func (d *daemon) delete(bundle string) (*tasks.DeleteResponse, error) {
	// First destroy processes that may still run: the other steps can fail, and can wait for others.
	s, failed := readState(bundle)
	isNative := errors.Is(failed, fs.ErrNotExist)
	if failed == nil {
		failed = d.destroy(s, bundle)
	}
	socket := d.socketOf(bundle)
	orphaned := remote.IsDead([]byte(socket))
	if orphaned {
		os.Remove(socket)
	}
	if err := module.RemoveDeadPreparers(StateDir); err != nil {
		d.log.WithError(err).Warn("remove the preparers of dead shims: they may take memory until the next container is deleted")
	}
	response := &tasks.DeleteResponse{ExitStatus: 128 + uint32(unix.SIGKILL), ExitedAt: timestamppb.New(time.Now())}
	if isNative {
		return d.deleteNative(bundle, orphaned, response)
	}
	// Also after a failure: containerd does not run the verb again.
	if s.Spool != "" {
		ctx, cancel := context.WithTimeout(context.Background(), lateSpoolLimit)
		defer cancel()
		if err := removeTree(ctx, s.Spool); err != nil {
			d.log.WithError(err).Warn("remove the folder for what was written to artifacts: it stays")
		}
	}
	if failed != nil {
		return nil, fmt.Errorf("clean up container %s: %w", d.flags.ID, failed)
	}
	response.Pid = uint32(s.PID)
	if s.exit != nil {
		response.ExitStatus, response.ExitedAt = uint32(s.exit.Status), timestamppb.New(s.exit.At)
	}
	return response, nil
}

// deleteNative cleans up a native container. It returns none if the stock shim does not report how the
// container ended.
func (d *daemon) deleteNative(bundle string, orphaned bool, none *tasks.DeleteResponse) (*tasks.DeleteResponse, error) {
	left := stock.Left{ID: d.flags.ID, Bundle: bundle, Orphaned: orphaned}
	if group, err := groupOf(bundle, d.flags.ID); err == nil {
		left.Group = group
	}
	response, err := d.stock().Delete(left)
	if err == nil && response == nil {
		return none, nil
	}
	return response, err
}

// socketOf returns the path of the socket on which the container's daemon listens or has listened. The bundle
// may have no file with it: containerd 2.3 and later run no start verb for the containers of a pod that come
// after its pause container.
func (d *daemon) socketOf(bundle string) string {
	group, err := groupOf(bundle, d.flags.ID)
	if err != nil {
		group = d.flags.ID
	}
	return socketPath(d.flags, group)
}

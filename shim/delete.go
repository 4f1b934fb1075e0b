package shim

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	tasks "github.com/containerd/containerd/api/runtime/task/v2"
	"github.com/containerd/ttrpc"
	"github.com/sirupsen/logrus"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/wasmshim/containerd-shim-wasm/module"
)

// Delete is the delete verb: containerd runs it in a container's bundle when
// its connection to the daemon has ended, be it because the container is gone or
// because the daemon has died. It removes whatever is left.
func Delete(flags Flags, out io.Writer) error {
	bundle := flags.Bundle
	if bundle == "" {
		dir, err := os.Getwd()
		if err != nil {
			return fmt.Errorf("find bundle: %w", err)
		}
		bundle = dir
	}
	n := &node{flags: flags, log: logrus.NewEntry(logrus.StandardLogger())}
	response, err := n.delete(bundle)
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

func (n *node) delete(bundle string) (*tasks.DeleteResponse, error) {
	// First of all what may still run: the rest can fail, and can wait for others.
	s, failed := readState(bundle)
	isNative := errors.Is(failed, fs.ErrNotExist)
	if failed == nil {
		failed = n.destroy(s, bundle)
	}
	daemon := n.daemonSocket(bundle)
	orphaned := isDead(daemon)
	if orphaned {
		os.Remove(daemon)
	}
	if err := module.RemoveDeadPreparers(StateDir); err != nil {
		n.log.WithError(err).Warn("clean up after a dead shim")
	}
	response := &tasks.DeleteResponse{ExitStatus: 128 + uint32(unix.SIGKILL), ExitedAt: timestamppb.New(time.Now())}
	if isNative {
		return n.deleteNative(bundle, orphaned, response)
	}
	if failed != nil {
		return nil, fmt.Errorf("clean up container %s: %w", n.flags.ID, failed)
	}
	response.Pid = uint32(s.PID)
	if s.exit != nil {
		response.ExitStatus, response.ExitedAt = uint32(s.exit.Status), timestamppb.New(s.exit.At)
	}
	return response, nil
}

// deleteNative has the stock shim's own delete verb clean up. If our daemon has
// died, the stock shim it had started has nobody left to serve.
func (n *node) deleteNative(bundle string, orphaned bool, none *tasks.DeleteResponse) (*tasks.DeleteResponse, error) {
	dir := filepath.Join(bundle, nativeDir)
	if _, err := os.Stat(dir); err != nil {
		return none, nil
	}
	if orphaned {
		n.endStockShim(filepath.Join(dir, endpointFile))
	}
	if _, err := os.Stat(filepath.Join(dir, deletedFile)); err == nil {
		return none, nil
	}
	output, err := n.runStockShim(n.flags.ID, bundle, "delete", "-bundle", bundle)
	if err != nil {
		return nil, err
	}
	response := &tasks.DeleteResponse{}
	if err := proto.Unmarshal(output, response); err != nil {
		return nil, fmt.Errorf("decode answer of %s: %w", stockShim, err)
	}
	return response, nil
}

// daemonSocket is where the container's daemon listens or has listened. A file of
// the bundle need not tell: containerd 2.3 and later run no start verb for the
// containers of a pod that come after its pause container.
func (n *node) daemonSocket(bundle string) string {
	group, err := groupOf(bundle, n.flags.ID)
	if err != nil {
		group = n.flags.ID
	}
	return socketPath(n.flags, group)
}

// isDead reports whether no daemon answers at a socket. That one can connect says
// nothing: a process that is ending closes what it has open in any order, so the
// connection whose end made containerd run us may be gone before the socket that it
// listened at. Who has connected until then is told when that goes.
func isDead(socket string) bool {
	r, err := dialShim([]byte(socket))
	if err != nil {
		return true
	}
	defer r.client.Close()
	ctx, cancel := context.WithTimeout(context.Background(), stopLimit)
	defer cancel()
	_, err = r.Connect(ctx, &tasks.ConnectRequest{})
	return errors.Is(err, ttrpc.ErrClosed)
}

// removeUnusedSocket removes a socket at which nobody listens.
func removeUnusedSocket(socket string) {
	conn, err := net.Dial("unix", socket)
	if err != nil {
		os.Remove(socket)
		return
	}
	conn.Close()
}

// endStockShim has a stock shim whose daemon has died give up the container, and
// end if that was its last. What does not work is left to its delete verb.
func (n *node) endStockShim(file string) {
	endpoint, err := os.ReadFile(file)
	if err != nil {
		return
	}
	// One that was killed too leaves them, be it now or while it is spoken to.
	defer n.removeStockSockets(strings.TrimPrefix(parseEndpoint(endpoint).Address, "unix://"), filepath.Dir(filepath.Dir(file)))
	r, err := dialShim(endpoint)
	if err != nil {
		return
	}
	defer r.client.Close()
	ctx, cancel := context.WithTimeout(context.Background(), stopLimit)
	defer cancel()
	id := n.flags.ID
	_, killErr := r.Kill(ctx, &tasks.KillRequest{ID: id, Signal: uint32(unix.SIGKILL), All: true})
	if killErr == nil {
		_, killErr = r.Wait(ctx, &tasks.WaitRequest{ID: id})
	}
	// One that has ended already cannot be killed but deleted.
	_, deleteErr := r.Delete(ctx, &tasks.DeleteRequest{ID: id})
	if deleteErr != nil {
		n.log.WithError(errors.Join(killErr, deleteErr)).WithField("container", id).Warn("delete native container")
	}
	if _, err := r.Shutdown(ctx, &tasks.ShutdownRequest{ID: id}); err != nil && !errors.Is(err, ttrpc.ErrClosed) {
		n.log.WithError(err).Warn("end of the stock shim")
	}
}

// removeStockSockets removes the two sockets of a stock shim that is dead: the one
// it served and, beside it, the one for debugging, named as SocketAddress of
// containerd's pkg/shim does.
func (n *node) removeStockSockets(served, bundle string) {
	removeUnusedSocket(served)
	group, err := groupOf(bundle, n.flags.ID)
	if err != nil {
		return
	}
	name := sha256.Sum256([]byte(filepath.Join(n.flags.Address, n.flags.Namespace, group, "debug")))
	removeUnusedSocket(filepath.Join(filepath.Dir(served), hex.EncodeToString(name[:])))
}

// stopLimit bounds what must not keep containerd waiting.
const stopLimit = 3 * time.Second

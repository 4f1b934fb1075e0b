package stock

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	tasks "github.com/containerd/containerd/api/runtime/task/v2"
	"github.com/containerd/ttrpc"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	"github.com/wasmshim/containerd-shim-wasm/shim/remote"
)

// Left is what a daemon has left of a native container when containerd runs the delete verb.
type Left struct {
	ID, Bundle string
	// Group is what the container shares a shim for; empty if that cannot be known.
	Group string
	// Orphaned says that the daemon has died.
	Orphaned bool
}

// exists reports whether the stock shim was ever asked to create the container.
func (l Left) exists() bool {
	_, err := os.Stat(filepath.Join(l.Bundle, folder))
	return err == nil
}

func (l Left) file(name string) string { return filepath.Join(l.Bundle, folder, name) }

// Delete has the stock shim's own delete verb clean up, unless nothing is left to do; the response is nil
// then. If our daemon has died, the stock shim it had started has nobody left to serve.
func (f Flags) Delete(left Left) (*tasks.DeleteResponse, error) {
	if !left.exists() {
		return nil, nil
	}
	if left.Orphaned {
		f.endOrphan(left)
	}
	if _, err := os.Stat(left.file(deletedFile)); err == nil {
		return nil, nil
	}
	output, err := f.run(left.ID, left.Bundle, "delete", "-bundle", left.Bundle)
	if err != nil {
		return nil, err
	}
	response := &tasks.DeleteResponse{}
	if err := proto.Unmarshal(output, response); err != nil {
		return nil, fmt.Errorf("decode answer of %s: %w", Program, err)
	}
	return response, nil
}

// stopLimit bounds what must not keep containerd waiting.
const stopLimit = 3 * time.Second

// endOrphan has a stock shim whose daemon has died give up the container, and
// end if that was its last. What does not work is left to its delete verb.
func (f Flags) endOrphan(left Left) {
	endpoint, err := os.ReadFile(left.file(endpointFile))
	if err != nil {
		return
	}
	// One that was killed too leaves them, be it now or while it is spoken to.
	defer f.removeSockets(strings.TrimPrefix(remote.ParseEndpoint(endpoint).Address, "unix://"), left.Group)
	r, err := remote.Dial(endpoint)
	if err != nil {
		return
	}
	defer r.Close()
	ctx, cancel := context.WithTimeout(context.Background(), stopLimit)
	defer cancel()
	id := left.ID
	_, killErr := r.Kill(ctx, &tasks.KillRequest{ID: id, Signal: uint32(unix.SIGKILL), All: true})
	if killErr == nil {
		_, killErr = r.Wait(ctx, &tasks.WaitRequest{ID: id})
	}
	// One that has ended already cannot be killed but deleted.
	_, deleteErr := r.Delete(ctx, &tasks.DeleteRequest{ID: id})
	if deleteErr != nil {
		f.Log.WithError(errors.Join(killErr, deleteErr)).WithField("container", id).Warn("delete native container")
	}
	if _, err := r.Shutdown(ctx, &tasks.ShutdownRequest{ID: id}); err != nil && !errors.Is(err, ttrpc.ErrClosed) {
		f.Log.WithError(err).Warnf("end %s: it may go on without containers", Program)
	}
}

// removeSockets removes the two sockets of a stock shim that is dead: the one
// it served and, beside it, the one for debugging, named as SocketAddress of
// containerd's pkg/shim does.
func (f Flags) removeSockets(served, group string) {
	removeUnused(served)
	if group == "" {
		return
	}
	name := sha256.Sum256([]byte(filepath.Join(f.Address, f.Namespace, group, "debug")))
	removeUnused(filepath.Join(filepath.Dir(served), hex.EncodeToString(name[:])))
}

// removeUnused removes a socket at which nobody listens.
func removeUnused(socket string) {
	conn, err := net.Dial("unix", socket)
	if err != nil {
		os.Remove(socket)
		return
	}
	conn.Close()
}

package stock

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	tasks "github.com/containerd/containerd/api/runtime/task/v2"
	"github.com/containerd/ttrpc"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	"github.com/wasmshim/containerd-shim-wasm/shim/remote"
)

// Left describes a native container that a daemon has left when containerd runs the delete verb.
type Left struct {
	ID, Bundle string
	// Group is the group for which the container shares a shim; empty if it is unknown.
	Group string
	// Orphaned reports whether the daemon has died.
	Orphaned bool
}

// exists reports whether the stock shim was ever asked to create the container.
func (l Left) exists() bool { return l.has("") }

// has reports whether a file is in the folder of the stock shim.
func (l Left) has(name string) bool {
	_, err := os.Stat(l.file(name))
	return err == nil
}

func (l Left) file(name string) string { return filepath.Join(l.Bundle, folder, name) }

// Delete makes the stock shim's own delete verb clean up. If nothing is left to do, the response is nil. If
// our daemon has died, Delete first ends the stock shim that the daemon had started.
func (f Flags) Delete(left Left) (*tasks.DeleteResponse, error) {
	if !left.exists() {
		return nil, nil
	}
	deleted := left.has(deletedFile)
	if deleted && !left.Orphaned {
		return nil, nil
	}
	// The stock shim may have been killed, and a killed one leaves its sockets. A daemon that lives does not rule
	// that out: after both shims of a pod were killed, the kubelet may start a container again, and so a new daemon,
	// before containerd runs the delete verb for this one.
	defer f.removeSockets(left)
	if left.Orphaned {
		f.endOrphan(left)
	}
	if deleted {
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

// stopLimit bounds each step that must not keep containerd waiting.
const stopLimit = 3 * time.Second

// endOrphan makes a stock shim whose daemon has died give up the container, and end if that was its last. If
// a step fails, the stock shim's delete verb cleans up.
func (f Flags) endOrphan(left Left) {
	endpoint, err := os.ReadFile(left.file(endpointFile))
	if err != nil {
		return
	}
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
	// A container that has ended already cannot be killed but deleted.
	_, deleteErr := r.Delete(ctx, &tasks.DeleteRequest{ID: id})
	if deleteErr != nil {
		f.Log.WithError(errors.Join(killErr, deleteErr)).WithField("container", id).Warn("delete native container")
	}
	if _, err := r.Shutdown(ctx, &tasks.ShutdownRequest{ID: id}); err != nil && !errors.Is(err, ttrpc.ErrClosed) {
		f.Log.WithError(err).Warnf("end %s: it may go on without containers", Program)
	}
}

// removeSockets removes the two sockets of the container's stock shim if it is dead: the one it served and, beside
// it, the one for debugging, which has the name that SocketAddress of containerd's pkg/shim gives it.
func (f Flags) removeSockets(left Left) {
	endpoint, err := os.ReadFile(left.file(endpointFile))
	if err != nil {
		return
	}
	endpointInfo, err := os.Stat(left.file(endpointFile))
	if err != nil {
		return
	}
	served := strings.TrimPrefix(remote.ParseEndpoint(endpoint).Address, "unix://")
	sockets := []string{served}
	if left.Group != "" {
		name := sha256.Sum256([]byte(filepath.Join(f.Address, f.Namespace, left.Group, "debug")))
		sockets = append(sockets, filepath.Join(filepath.Dir(served), hex.EncodeToString(name[:])))
	}
	// A younger socket is of the shim that came next, which may be about to listen on it.
	sockets = slices.DeleteFunc(sockets, func(socket string) bool {
		info, err := os.Lstat(socket)
		return err != nil || info.ModTime().After(endpointInfo.ModTime())
	})
	if len(sockets) == 0 || !remote.IsDead(endpoint) {
		return
	}
	for _, socket := range sockets {
		if err := os.Remove(socket); err != nil && !errors.Is(err, fs.ErrNotExist) {
			f.Log.WithError(err).Warnf("remove the socket of a dead %s: the file stays", Program)
		}
	}
}

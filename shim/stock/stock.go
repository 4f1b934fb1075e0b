// Package stock runs the node's own containerd-shim-runc-v2, which serves the native containers of a pod. It
// starts, calls and ends it exactly as containerd would.
//
// It changes nothing about a native container, and mounts none.
package stock

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"

	bootapi "github.com/containerd/containerd/api/runtime/bootstrap/v1"
	tasks "github.com/containerd/containerd/api/runtime/task/v2"
	"github.com/containerd/ttrpc"
	"github.com/sirupsen/logrus"
	"google.golang.org/protobuf/proto"

	"github.com/wasmshim/containerd-shim-wasm/shim/remote"
)

// Program is the shim that containerd itself would use for a native container.
const Program = "containerd-shim-runc-v2"

// folder is the folder of a bundle in which the stock shim is started. It differs from the bundle because the
// stock shim leaves a file "address" where it is started, and containerd must find ours in the bundle when it
// restarts.
const folder = "native"

const (
	// endpointFile, in folder, has the address of the stock shim. The delete verb reads it when the daemon
	// has died.
	endpointFile = "endpoint"
	// deletedFile, in folder, marks that the stock shim has deleted the container.
	deletedFile = "deleted"
)

// Flags are the flags for the verbs of the stock shim, as containerd gave them to us.
type Flags struct {
	Namespace, Address, PublishBinary string
	Debug                             bool
	Bootstrap                         []byte // containerd's input to the start verb
	Log                               *logrus.Entry
}

// Shim is the pod's stock shim, started for the first native container. The zero value with Flags is
// one that has not been started.
type Shim struct {
	Flags Flags

	ending atomic.Bool

	mu       sync.Mutex
	endpoint []byte // what its start verb printed
	*remote.Tasks
}

// Container is a container that the stock shim serves.
type Container struct {
	*Shim
	Bundle string
}

// Delete makes the stock shim delete the container or an exec. It leaves nothing to do for the stock shim's
// delete verb, which containerd makes us run all the same.
func (c Container) Delete(ctx context.Context, r *tasks.DeleteRequest) (*tasks.DeleteResponse, error) {
	response, err := c.Shim.Delete(ctx, r)
	if err != nil || r.ExecID != "" {
		return response, err
	}
	if err := os.WriteFile(filepath.Join(c.Bundle, folder, deletedFile), nil, 0o600); err != nil {
		c.Flags.Log.WithError(err).WithField("container", r.ID).Warn("mark native container as deleted: its delete verb runs for nothing")
	}
	return response, nil
}

// Prepare starts the stock shim, unless it runs, under the name of a group, the pod. It leaves in the bundle
// the files that the delete verb needs.
func (s *Shim) Prepare(group, bundle string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	dir := filepath.Join(bundle, folder)
	if err := prepareFolder(bundle, dir); err != nil {
		return err
	}
	if s.Tasks == nil {
		if err := s.start(group, dir); err != nil {
			return err
		}
	}
	if err := os.WriteFile(filepath.Join(dir, endpointFile), s.endpoint, 0o600); err != nil {
		return fmt.Errorf("prepare native container: %w", err)
	}
	return nil
}

// start starts the stock shim under the name of the pod: it listens on the sockets of the pod and, when it
// ends, removes those of the id it was started with.
func (s *Shim) start(group, dir string) error {
	output, err := s.Flags.run(group, dir, "start")
	if err != nil {
		return err
	}
	r, err := remote.Dial(output, ttrpc.WithOnClose(s.lost))
	if err != nil {
		return fmt.Errorf("connect to %s: %w", Program, err)
	}
	s.Tasks, s.endpoint = r, output
	return nil
}

// prepareFolder links the two files of a bundle that the stock shim opens where it is started: the
// specification and the log.
func prepareFolder(bundle, dir string) error {
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("prepare native container: %w", err)
	}
	for _, name := range []string{"config.json", "log"} {
		err := os.Symlink(filepath.Join(bundle, name), filepath.Join(dir, name))
		if err != nil && !errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("prepare native container: %w", err)
		}
	}
	return nil
}

// End ends the stock shim; it is called when no container is left.
func (s *Shim) End(ctx context.Context, r *tasks.ShutdownRequest) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.Tasks == nil {
		return
	}
	s.ending.Store(true)
	if _, err := s.Shutdown(ctx, r); err != nil && !errors.Is(err, ttrpc.ErrClosed) {
		s.Flags.Log.WithError(err).Warnf("end %s: it may go on without containers", Program)
	}
	s.Close()
	s.Tasks = nil
}

// lost is called when the connection to the stock shim ends. Unless we ended it, its containers have no shim
// now. A pod whose shim has died is dead: we end too, and containerd's delete verb cleans up each container,
// as after any shim's death.
func (s *Shim) lost() {
	if s.ending.Load() {
		return
	}
	s.Flags.Log.Errorf("%s has died: its containers are lost, so is this shim", Program)
	os.Exit(1)
}

// run runs one of the stock shim's verbs in dir with the arguments,
// environment and input that containerd gave us.
func (f Flags) run(id, dir, verb string, more ...string) ([]byte, error) {
	path, err := exec.LookPath(Program)
	if err != nil {
		return nil, fmt.Errorf("native container: %s is not on containerd's PATH: install it beside containerd: %w", Program, err)
	}
	args := []string{"-namespace", f.Namespace, "-address", f.Address, "-publish-binary", f.PublishBinary, "-id", id}
	if f.Debug {
		args = append(args, "-debug")
	}
	cmd := exec.Command(path, append(append(args, more...), verb)...)
	cmd.Dir = dir
	cmd.Stdin = bytes.NewReader(bootstrapFor(id, f.Bootstrap))
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	output, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w: %s", Program, verb, err, strings.TrimSpace(stderr.String()))
	}
	return output, nil
}

// bootstrapFor rewrites for container id the parameters that containerd (2.3 and later) sent to our start
// verb; older versions send only the runtime's options.
func bootstrapFor(id string, bootstrap []byte) []byte {
	var params bootapi.BootstrapParams
	if proto.Unmarshal(bootstrap, &params) != nil || params.ContainerdVersion == "" {
		return bootstrap
	}
	params.InstanceID = id
	changed, err := proto.Marshal(&params)
	if err != nil {
		return bootstrap
	}
	return changed
}

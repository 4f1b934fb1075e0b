package shim

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"

	bootapi "github.com/containerd/containerd/api/runtime/bootstrap/v1"
	tasks "github.com/containerd/containerd/api/runtime/task/v2"
	"github.com/containerd/ttrpc"
	"google.golang.org/protobuf/proto"
)

// stockShim is the shim containerd itself would use for a native container.
const stockShim = "containerd-shim-runc-v2"

// nativeDir is the folder of a bundle from which the stock shim is started. It
// has a folder of its own because it leaves a file "address" where it is
// started, and containerd must find ours in the bundle when it restarts.
const nativeDir = "native"

// nativeShim is the pod's stock shim: started for the first native container,
// exactly as containerd would, and spoken to as containerd would.
type nativeShim struct {
	node *node

	ending atomic.Bool

	mu       sync.Mutex
	endpoint []byte // what its start verb printed
	*remote
}

// endpointFile, in nativeDir, says where the stock shim listens. The delete verb
// reads it when the daemon has died.
const endpointFile = "endpoint"

// deletedFile, in nativeDir, says that the stock shim has deleted the container.
const deletedFile = "deleted"

// nativeContainer is a container of the stock shim's.
type nativeContainer struct {
	*nativeShim
	bundle string
}

// Delete has the stock shim delete the container or an exec. It leaves nothing to do
// for the stock shim's delete verb, which containerd has us run all the same.
func (c nativeContainer) Delete(ctx context.Context, r *tasks.DeleteRequest) (*tasks.DeleteResponse, error) {
	response, err := c.nativeShim.Delete(ctx, r)
	if err != nil || r.ExecID != "" {
		return response, err
	}
	if err := os.WriteFile(filepath.Join(c.bundle, nativeDir, deletedFile), nil, 0o600); err != nil {
		c.node.log.WithError(err).WithField("container", r.ID).Warn("its end takes longer than it could")
	}
	return response, nil
}

func (n *nativeShim) create(ctx context.Context, r *tasks.CreateTaskRequest) (*tasks.CreateTaskResponse, error) {
	options, err := n.node.nativeOptions(r.Options, r.Bundle)
	if err != nil {
		return nil, err
	}
	r.Options = options
	if err := n.connect(r.ID, r.Bundle); err != nil {
		return nil, err
	}
	return n.remote.Create(ctx, r)
}

// connect starts the stock shim if there is none, and leaves in the bundle what
// the delete verb needs.
func (n *nativeShim) connect(id, bundle string) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	dir := filepath.Join(bundle, nativeDir)
	if err := prepareNativeDir(bundle, dir); err != nil {
		return err
	}
	if n.remote == nil {
		if err := n.startShim(id, bundle, dir); err != nil {
			return err
		}
	}
	if err := os.WriteFile(filepath.Join(dir, endpointFile), n.endpoint, 0o600); err != nil {
		return fmt.Errorf("prepare native container: %w", err)
	}
	return nil
}

// startShim starts the stock shim under the name of the pod: it removes the
// sockets of the id it was started with when it ends, and listens on those of the
// pod.
func (n *nativeShim) startShim(id, bundle, dir string) error {
	group, err := groupOf(bundle, id)
	if err != nil {
		return err
	}
	output, err := n.node.runStockShim(group, dir, "start")
	if err != nil {
		return err
	}
	r, err := dialShim(output, ttrpc.WithOnClose(n.lost))
	if err != nil {
		return fmt.Errorf("connect to %s: %w", stockShim, err)
	}
	n.remote, n.endpoint = r, output
	return nil
}

// prepareNativeDir gives the stock shim the two things of a bundle that it looks
// for where it is started: the specification and the log.
func prepareNativeDir(bundle, dir string) error {
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

// end lets the stock shim go; it is called when no container is left.
func (n *nativeShim) end(ctx context.Context, r *tasks.ShutdownRequest) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.remote == nil {
		return
	}
	n.ending.Store(true)
	if _, err := n.remote.Shutdown(ctx, r); err != nil && !errors.Is(err, ttrpc.ErrClosed) {
		n.node.log.WithError(err).Warn("end of the stock shim")
	}
	n.remote.client.Close()
	n.remote = nil
}

// lost is called when the connection to the stock shim ends. If that was not our
// doing, its containers are without a shim. A pod whose shim has died is dead: we
// end too, and containerd's delete verb cleans up each container, as it does after
// any shim's death.
func (n *nativeShim) lost() {
	if n.ending.Load() {
		return
	}
	n.node.log.Errorf("%s has died: its containers are lost, so is this shim", stockShim)
	os.Exit(1)
}

// runStockShim runs one of the stock shim's verbs in dir with the arguments,
// environment and input that containerd gave us.
func (n *node) runStockShim(id, dir, verb string, more ...string) ([]byte, error) {
	path, err := exec.LookPath(stockShim)
	if err != nil {
		return nil, fmt.Errorf("native container: %s is not on containerd's PATH: install it beside containerd: %w", stockShim, err)
	}
	args := []string{"-namespace", n.flags.Namespace, "-address", n.flags.Address, "-publish-binary", n.flags.PublishBinary, "-id", id}
	if n.flags.Debug {
		args = append(args, "-debug")
	}
	cmd := exec.Command(path, append(append(args, more...), verb)...)
	cmd.Dir = dir
	cmd.Stdin = bytes.NewReader(bootstrapFor(id, n.bootstrap))
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	output, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w: %s", stockShim, verb, err, strings.TrimSpace(stderr.String()))
	}
	return output, nil
}

// bootstrapFor rewrites what containerd (2.3 and later) sent to our start verb
// for container id; older ones send only the runtime's options.
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

// endpoint is what a shim's start verb prints.
type endpoint struct {
	Version  int    `json:"version"`
	Address  string `json:"address"`
	Protocol string `json:"protocol"`
}

// dialShim connects to the shim whose start verb printed output.
func dialShim(output []byte, opts ...ttrpc.ClientOpts) (*remote, error) {
	e := parseEndpoint(output)
	conn, err := net.Dial("unix", strings.TrimPrefix(e.Address, "unix://"))
	if err != nil {
		return nil, err
	}
	r := &remote{client: ttrpc.NewClient(conn, opts...), service: serviceV2}
	if e.Version >= 3 {
		r.service = serviceV3
	}
	return r, nil
}

// parseEndpoint reads the answer in each of its forms: a BootstrapResult to
// bootstrap parameters (containerd 2.3 and later), JSON (1.7 and later), or the
// address alone.
func parseEndpoint(output []byte) endpoint {
	text := bytes.TrimSpace(output)
	var e endpoint
	if err := json.Unmarshal(text, &e); err == nil && e.Address != "" {
		return e
	}
	var result bootapi.BootstrapResult
	if err := proto.Unmarshal(output, &result); err == nil && result.Address != "" {
		return endpoint{Version: int(result.Version), Address: result.Address, Protocol: result.Protocol}
	}
	return endpoint{Version: 2, Address: string(text), Protocol: "ttrpc"}
}

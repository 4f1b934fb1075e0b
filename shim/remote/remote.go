// Package remote speaks to shims as containerd does: to the stock one, which serves native containers, and to
// a daemon of ours, to check whether it is alive.
//
// It starts no shim, and knows no container.
package remote

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net"
	"strings"
	"time"

	bootapi "github.com/containerd/containerd/api/runtime/bootstrap/v1"
	tasks "github.com/containerd/containerd/api/runtime/task/v2"
	"github.com/containerd/ttrpc"
	"google.golang.org/protobuf/proto"
)

// Versions 2 and 3 of the task API have the same methods and, byte for byte, the same messages
// (api/runtime/task/v{2,3}/shim.proto); only the service's name differs. So we send the messages of version 2
// under either name, and the daemon does not need the gRPC package that the generated code of version 3
// imports.
const (
	ServiceV2 = "containerd.task.v2.Task"
	ServiceV3 = "containerd.task.v3.Task"
)

// Tasks is a task service behind a ttrpc connection, under either name.
type Tasks struct {
	client  *ttrpc.Client
	service string
}

// Dial connects to the shim whose start verb printed output.
func Dial(output []byte, opts ...ttrpc.ClientOpts) (*Tasks, error) {
	e := ParseEndpoint(output)
	conn, err := net.Dial("unix", strings.TrimPrefix(e.Address, "unix://"))
	if err != nil {
		return nil, err
	}
	r := &Tasks{client: ttrpc.NewClient(conn, opts...), service: ServiceV2}
	if e.Version >= 3 {
		r.service = ServiceV3
	}
	return r, nil
}

// IsDead reports whether no shim answers at the address that its start verb printed. A successful connect
// proves nothing: a process that is ending closes its descriptors in any order, so containerd's connection,
// whose end starts the delete verb, may close before the listening socket. A pending call fails with ErrClosed
// when the process ends.
func IsDead(output []byte) bool {
	r, err := Dial(output)
	if err != nil {
		return true
	}
	defer r.Close()
	ctx, cancel := context.WithTimeout(context.Background(), answerLimit)
	defer cancel()
	_, err = r.Connect(ctx, &tasks.ConnectRequest{})
	return errors.Is(err, ttrpc.ErrClosed)
}

// answerLimit bounds the wait for an answer of a shim that may be dead. A shim that hangs is not dead.
const answerLimit = 3 * time.Second

// Close ends the connection.
func (r *Tasks) Close() error { return r.client.Close() }

// Endpoint is what a shim's start verb prints.
type Endpoint struct {
	Version  int    `json:"version"`
	Address  string `json:"address"`
	Protocol string `json:"protocol"`
}

// ParseEndpoint reads the answer in each of its forms: a BootstrapResult to
// bootstrap parameters (containerd 2.3 and later), JSON (1.7 and later), or the
// address alone.
func ParseEndpoint(output []byte) Endpoint {
	text := bytes.TrimSpace(output)
	var e Endpoint
	if err := json.Unmarshal(text, &e); err == nil && e.Address != "" {
		return e
	}
	var result bootapi.BootstrapResult
	if err := proto.Unmarshal(output, &result); err == nil && result.Address != "" {
		return Endpoint{Version: int(result.Version), Address: result.Address, Protocol: result.Protocol}
	}
	return Endpoint{Version: 2, Address: string(text), Protocol: "ttrpc"}
}

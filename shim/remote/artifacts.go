package remote

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"slices"

	"github.com/containerd/ttrpc"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/wasmshim/containerd-shim-wasm/artifact/progress"
)

// ServiceArtifacts is the service of a daemon of ours that lists the artifacts of its containers. Its method List takes
// an Empty and returns an Any whose value is the JSON of a list of [Artifacts].
const ServiceArtifacts = "io.containerd.wasm.v1.Artifacts"

// Artifacts are those of one container.
type Artifacts struct {
	Namespace string // of Kubernetes, "" outside of a pod
	Pod       string // its name
	Sandbox   string // id of the pod's first container
	Container string // its name, or its id outside of a pod
	Artifacts []progress.Artifact
	// Error says why the list is missing.
	Error string `json:",omitempty"`
}

// ListArtifacts asks all daemons that listen on sockets in a folder. It returns what those have said that answer, and the
// errors of the others.
func ListArtifacts(ctx context.Context, folder string) ([]Artifacts, error) {
	sockets, err := filepath.Glob(filepath.Join(folder, "*.sock"))
	if err != nil {
		return nil, err
	}
	slices.Sort(sockets)
	var all []Artifacts
	var failed error
	for _, socket := range sockets {
		some, err := listArtifacts(ctx, socket)
		all = append(all, some...)
		if err != nil {
			failed = errors.Join(failed, fmt.Errorf("ask the shim at %s: %w", socket, err))
		}
	}
	return all, failed
}

func listArtifacts(ctx context.Context, socket string) ([]Artifacts, error) {
	ctx, cancel := context.WithTimeout(ctx, answerLimit)
	defer cancel()
	conn, err := (&net.Dialer{}).DialContext(ctx, "unix", socket)
	if err != nil {
		return nil, nil // the shim has ended: its socket is removed, or will be by the next one
	}
	client := ttrpc.NewClient(conn)
	defer client.Close()
	var answer anypb.Any
	err = client.Call(ctx, ServiceArtifacts, "List", &emptypb.Empty{}, &answer)
	if errors.Is(err, ttrpc.ErrClosed) {
		return nil, nil // it has ended meanwhile
	}
	if err != nil {
		return nil, err
	}
	var list []Artifacts
	err = json.Unmarshal(answer.Value, &list)
	return list, err
}

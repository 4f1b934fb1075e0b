package test

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	taskapi "github.com/containerd/containerd/api/runtime/task/v2"
	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/containerd/v2/pkg/oci"
	"github.com/containerd/ttrpc"

	"github.com/wasmshim/containerd-shim-wasm/internal/testnode"
)

// sandboxID is the annotation in which CRI names the pod of a container: its value is the id of the pod's first
// container.
const sandboxID = "io.kubernetes.cri.sandbox-id"

// leadingPod makes a container the first of its pod.
func leadingPod(ctx context.Context, c oci.Client, container *containers.Container, spec *oci.Spec) error {
	return inPod(container.ID)(ctx, c, container, spec)
}

// inPod puts a container into the pod of another container, and so into that container's shim.
func inPod(leader string) oci.SpecOpts {
	return oci.WithAnnotations(map[string]string{sandboxID: leader})
}

// connect asks the task's shim for its own process id and the task's. It uses the same address as containerd.
func (k *task) connect() *taskapi.ConnectResponse {
	k.t.Helper()
	address, err := os.ReadFile(filepath.Join(k.node.Bundle(k.container.ID()), "address"))
	if err != nil {
		k.t.Fatal(err)
	}
	connection, err := net.Dial("unix", strings.TrimPrefix(string(address), "unix://"))
	if err != nil {
		k.t.Fatal(err)
	}
	c := ttrpc.NewClient(connection)
	defer c.Close()
	response, err := taskapi.NewTTRPCTaskClient(c).Connect(k.ctx, &taskapi.ConnectRequest{ID: k.container.ID()})
	if err != nil {
		k.t.Fatal(err)
	}
	return response
}

// The Wasm and native containers of a pod share one shim, which ends with the last of them, in whichever order
// they came.
func TestPodSharesAShim(t *testing.T) {
	eachVersionWithTasks(t, func(t *testing.T, node *testnode.Node) {
		for _, order := range [][2]way{{asWasm, asNative}, {asNative, asWasm}, {asWasm, asWasm}, {asNative, asNative}} {
			t.Run(order[0].name+" before "+order[1].name, func(t *testing.T) {
				first := order[0].run(t, node, "sleep", "sleeping", leadingPod)
				second := order[1].run(t, node, "sleep", "sleeping", inPod(first.container.ID()))
				shim, other := first.connect(), second.connect()
				if shim.ShimPid != other.ShimPid {
					t.Errorf("shims %d and %d serve one pod", shim.ShimPid, other.ShimPid)
				}
				if shim.TaskPid != first.Pid() || other.TaskPid != second.Pid() {
					t.Errorf("tasks %d and %d, connected to %d and %d", first.Pid(), second.Pid(), shim.TaskPid, other.TaskPid)
				}
				first.stop()
				second.expectStatus(client.Running)
				second.execLoop()
				if !alive(shim.ShimPid) {
					t.Error("the shim ended before its last container")
				}
				second.stop()
				waitFor(t, func() bool { return !alive(shim.ShimPid) }, "the end of shim %d", shim.ShimPid)
			})
		}
	})
}

// Containers outside of a pod have shims of their own.
func TestContainersHaveTheirOwnShims(t *testing.T) {
	eachVersionWithTasks(t, func(t *testing.T, node *testnode.Node) {
		first, second := asWasm.run(t, node, "sleep", "sleeping"), asNative.run(t, node, "sleep", "sleeping")
		if first.connect().ShimPid == second.connect().ShimPid {
			t.Errorf("shim %d serves both", first.connect().ShimPid)
		}
	})
}

package incluster

import (
	"context"
	"fmt"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/wasmshim/containerd-shim-wasm/install"
)

// cri asks containerd. Each call dials anew: containerd may have been restarted, and a
// connection that has failed waits longer and longer before it tries again.
type cri struct{ socket string }

// criTimeout bounds one call.
const criTimeout = 10 * time.Second

func (c cri) call(ctx context.Context, what func(context.Context, runtimeapi.RuntimeServiceClient) error) error {
	ctx, cancel := context.WithTimeout(ctx, criTimeout)
	defer cancel()
	conn, err := grpc.NewClient("unix://"+c.socket, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(16<<20)))
	if err != nil {
		return fmt.Errorf("containerd at %s: %w", c.socket, err)
	}
	defer conn.Close()
	if err := what(ctx, runtimeapi.NewRuntimeServiceClient(conn)); err != nil {
		return fmt.Errorf("containerd at %s: %w", c.socket, err)
	}
	return nil
}

// version returns the name and version of the node's container runtime.
func (c cri) version(ctx context.Context) (name, version string, err error) {
	err = c.call(ctx, func(ctx context.Context, runtime runtimeapi.RuntimeServiceClient) error {
		answer, err := runtime.Version(ctx, &runtimeapi.VersionRequest{})
		name, version = answer.GetRuntimeName(), answer.GetRuntimeVersion()
		return err
	})
	return name, version, err
}

// configuration returns what containerd says that its CRI configuration is, as JSON.
func (c cri) configuration(ctx context.Context) (configuration []byte, err error) {
	err = c.call(ctx, func(ctx context.Context, runtime runtimeapi.RuntimeServiceClient) error {
		answer, err := runtime.Status(ctx, &runtimeapi.StatusRequest{Verbose: true})
		configuration = []byte(answer.GetInfo()["config"])
		return err
	})
	return configuration, err
}

// wasmPods returns the pods of our runtime that run, as namespace/name.
func (c cri) wasmPods(ctx context.Context) (pods []string, err error) {
	ready := &runtimeapi.PodSandboxFilter{State: &runtimeapi.PodSandboxStateValue{State: runtimeapi.PodSandboxState_SANDBOX_READY}}
	err = c.call(ctx, func(ctx context.Context, runtime runtimeapi.RuntimeServiceClient) error {
		answer, err := runtime.ListPodSandbox(ctx, &runtimeapi.ListPodSandboxRequest{Filter: ready})
		for _, pod := range answer.GetItems() {
			if pod.RuntimeHandler == install.Handler {
				pods = append(pods, pod.Metadata.GetNamespace()+"/"+pod.Metadata.GetName())
			}
		}
		return err
	})
	return pods, err
}

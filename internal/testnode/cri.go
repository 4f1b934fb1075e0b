package testnode

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/wasmshim/containerd-shim-wasm/internal/poll"
)

const (
	// PauseImage is the image of the pause container in the node's pods; a test imports it.
	PauseImage = "example.com/testnode/pause:latest"
	// WasmHandler is the runtime handler of our shim; the default one is the stock shim's.
	WasmHandler = "wasm"
	// podNamespace is the containerd namespace of CRI's containers and images.
	podNamespace = "k8s.io"
)

// criConfig keeps the network namespaces of pods below the state folder, so that [Node.Snapshot]
// finds them and attributes them to this node.
func (n *Node) criConfig() string {
	if !n.options.CRI {
		return ""
	}
	section := "io.containerd.cri.v1.runtime"
	image := fmt.Sprintf("[plugins.\"io.containerd.cri.v1.images\".pinned_images]\n  sandbox = %q\n", PauseImage)
	plain, folders := "", "bin_dirs = [%q]"
	if n.Version == "1.7" {
		section, image = "io.containerd.grpc.v1.cri", ""
		plain, folders = fmt.Sprintf("  sandbox_image = %q\n", PauseImage), "bin_dir = %q"
	}
	return fmt.Sprintf(`[plugins.%[1]q]
  restrict_oom_score_adj = true
  netns_mounts_under_state_dir = true
%[2]s
[plugins.%[1]q.cni]
  %[3]s
  conf_dir = %[4]q
[plugins.%[1]q.containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"
%[5]s`, section, plain, fmt.Sprintf(folders, n.cni("bin")), n.cni("net.d"), image) + n.shimConfig(section)
}

// shimConfig has the entries that install makes: our runtime, and the settings for pulling its
// images.
func (n *Node) shimConfig(section string) string {
	if n.options.WithoutShim {
		return ""
	}
	text := fmt.Sprintf("[plugins.%q.containerd.runtimes.%s]\n  runtime_type = \"io.containerd.wasm.v1\"\n", section, WasmHandler)
	if n.Version == "2.4" {
		text += "[plugins.\"io.containerd.cri.v1.images\"]\n  use_local_image_pull = true\n"
	}
	return text
}

func (n *Node) cni(name string) string { return filepath.Join(n.Dir, "cni", name) }

// writeNetwork gives pods a network that ends at a bridge in containerd's own network namespace.
func (n *Node) writeNetwork(plugins string) error {
	if err := os.MkdirAll(n.cni("net.d"), 0o755); err != nil {
		return err
	}
	if err := os.Symlink(plugins, n.cni("bin")); err != nil {
		return err
	}
	text := fmt.Sprintf(`{
  "cniVersion": "1.0.0",
  "name": "testnode",
  "plugins": [{
    "type": "bridge",
    "bridge": "testnode0",
    "ipam": {"type": "host-local", "dataDir": %q, "ranges": [[{"subnet": "10.88.0.0/16"}]]}
  }]
}
`, n.cni("addresses"))
	return os.WriteFile(filepath.Join(n.cni("net.d"), "10-testnode.conflist"), []byte(text), 0o644)
}

// launchApart is launch in a network namespace of containerd's own, with a loopback interface that
// is up. The network of pods then changes nothing on the machine, and ends with the last of its
// processes.
func launchApart(command *exec.Cmd) (*daemon, error) {
	return launchOn(command, func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("unshare the network: %w", err)
		}
		socket, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("bring lo up: %w", err)
		}
		defer unix.Close(socket)
		request, err := unix.NewIfreq("lo")
		if err != nil {
			return err
		}
		request.SetUint16(unix.IFF_UP)
		return unix.IoctlIfreq(socket, unix.SIOCSIFFLAGS, request)
	})
}

// Pods is a client of containerd's CRI services, which a kubelet uses too. The caller closes it.
type Pods struct {
	criapi.RuntimeServiceClient
	images     criapi.ImageServiceClient
	connection *grpc.ClientConn
	node       *Node
}

// Pods returns the CRI services of a node that was started with CRI.
func (n *Node) Pods() (*Pods, error) {
	connection, err := grpc.NewClient("unix://"+n.Address(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil, err
	}
	return &Pods{
		RuntimeServiceClient: criapi.NewRuntimeServiceClient(connection), images: criapi.NewImageServiceClient(connection),
		connection: connection, node: n,
	}, nil
}

// podsReady waits until CRI answers: containerd serves before that, and CRI refuses all requests
// ("server is not initialized yet").
func (n *Node) podsReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, readyWithin)
	defer cancel()
	pods, err := n.Pods()
	if err != nil {
		return err
	}
	var last error
	err = poll.Until(ctx, func() (bool, error) {
		_, last = pods.Version(ctx, &criapi.VersionRequest{})
		return last == nil, nil
	})
	if err != nil {
		err = fmt.Errorf("CRI: %w: %w", err, last)
	}
	return errors.Join(err, pods.Close())
}

// Close ends the connection.
func (p *Pods) Close() error { return p.connection.Close() }

// Import imports an image tar for pods and returns when CRI knows the image called ref.
func (p *Pods) Import(ctx context.Context, tarPath, ref string) error {
	if err := p.node.importInto(ctx, podNamespace, tarPath); err != nil {
		return err
	}
	return poll.Until(ctx, func() (bool, error) { return p.Has(ctx, ref), nil })
}

// Has reports whether CRI knows the image called ref.
func (p *Pods) Has(ctx context.Context, ref string) bool {
	response, err := p.images.ImageStatus(ctx, &criapi.ImageStatusRequest{Image: &criapi.ImageSpec{Image: ref}})
	return err == nil && response.GetImage() != nil
}

// CgroupParent is the cgroup of a pod with the given name, below the node's.
func (n *Node) CgroupParent(pod string) string { return "/" + n.Namespace + "/" + pod }

// Exits returns a channel that receives the ids of containers when CRI reports their ends. It is
// closed when the context ends or the connection is lost.
func (p *Pods) Exits(ctx context.Context) (<-chan string, error) {
	stream, err := p.GetContainerEvents(ctx, &criapi.GetEventsRequest{})
	if err != nil {
		return nil, err
	}
	exits := make(chan string, 64)
	go func() {
		defer close(exits)
		for {
			event, err := stream.Recv()
			if err != nil {
				return
			}
			if event.ContainerEventType == criapi.ContainerEventType_CONTAINER_STOPPED_EVENT {
				select {
				case exits <- event.ContainerId:
				case <-ctx.Done():
					return
				}
			}
		}
	}()
	return exits, nil
}

// Pull makes CRI pull an image as a kubelet does and returns CRI's id for the image.
func (p *Pods) Pull(ctx context.Context, ref string) (string, error) {
	response, err := p.images.PullImage(ctx, &criapi.PullImageRequest{Image: &criapi.ImageSpec{Image: ref, UserSpecifiedImage: ref, RuntimeHandler: WasmHandler}})
	return response.GetImageRef(), err
}

// Remove makes CRI remove an image under all of its names.
func (p *Pods) Remove(ctx context.Context, ref string) error {
	_, err := p.images.RemoveImage(ctx, &criapi.RemoveImageRequest{Image: &criapi.ImageSpec{Image: ref}})
	return err
}

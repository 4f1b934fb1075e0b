package testcluster

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/containerd/containerd/v2/client"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"k8s.io/client-go/rest"
)

// RESTConfig returns how to reach the API server as its administrator, for client-go; it works outside of the
// cluster's network.
func (c *Cluster) RESTConfig() *rest.Config {
	return &rest.Config{
		Host: apiServer,
		Dial: c.Dial,
		TLSClientConfig: rest.TLSClientConfig{
			CAFile:   c.cert(authority),
			CertFile: c.cert("admin"),
			KeyFile:  c.key("admin"),
		},
		// The default limit of 5 requests per second is for many clients of one server.
		QPS:   100,
		Burst: 200,
	}
}

// get sends the API server a request for a path.
func (c *Cluster) get(ctx context.Context, path string) ([]byte, error) {
	client, err := rest.HTTPClientFor(c.RESTConfig())
	if err != nil {
		return nil, err
	}
	defer client.CloseIdleConnections()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, apiServer+path, nil)
	if err != nil {
		return nil, err
	}
	response, err := client.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s: %s", path, response.Status, text)
	}
	return text, err
}

func (c *Cluster) nodeReady(ctx context.Context) error {
	text, err := c.get(ctx, "/api/v1/nodes/"+nodeName)
	if err != nil {
		return err
	}
	var node struct {
		Status struct {
			Conditions []struct{ Type, Status, Message string }
		}
	}
	if err := json.Unmarshal(text, &node); err != nil {
		return err
	}
	for _, condition := range node.Status.Conditions {
		if condition.Type == "Ready" {
			if condition.Status == "True" {
				return nil
			}
			return fmt.Errorf("the node is not ready: %s", condition.Message)
		}
	}
	return errors.New("the node tells no condition")
}

// KubectlCommand returns kubectl with the cluster's configuration, not yet started; start it with
// [Cluster.StartInNetwork]. It sees the machine's files. It is killed when the context ends.
func (c *Cluster) KubectlCommand(ctx context.Context, args ...string) *exec.Cmd {
	command := exec.CommandContext(ctx, c.tool("kubernetes", "kubectl"), args...)
	command.Env = append(os.Environ(), "KUBECONFIG="+c.kubeconfig(), "HTTPS_PROXY=", "https_proxy=")
	return command
}

// StartInNetwork starts a command of the machine in the cluster's network.
func (c *Cluster) StartInNetwork(command *exec.Cmd) error {
	if command.Dir == "" {
		here, err := os.Getwd()
		if err != nil {
			return err
		}
		command.Dir = here
	}
	return c.enter([]string{"net"}, command.Start)
}

// Kubectl runs kubectl and returns what it printed; standard error is in the error when it fails.
func (c *Cluster) Kubectl(ctx context.Context, args ...string) (string, error) {
	return c.KubectlWith(ctx, nil, args...)
}

// KubectlWith is [Cluster.Kubectl] with a standard input, as for "apply -f -".
func (c *Cluster) KubectlWith(ctx context.Context, stdin io.Reader, args ...string) (string, error) {
	command := c.KubectlCommand(ctx, args...)
	var stdout, stderr bytes.Buffer
	command.Stdin, command.Stdout, command.Stderr = stdin, &stdout, &stderr
	if err := c.StartInNetwork(command); err != nil {
		return "", err
	}
	if err := command.Wait(); err != nil {
		return stdout.String(), fmt.Errorf("kubectl %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(stderr.String()))
	}
	return stdout.String(), nil
}

// Containerd returns a client of the node's containerd in the namespace of Kubernetes, which the caller closes.
// The process ids that it reports are the node's: see [Cluster.HostPID].
func (c *Cluster) Containerd() (*client.Client, error) {
	// The path leads through the node's root, because it is short: the path of a unix socket may have 107
	// bytes.
	socket := c.OnNode("/run/containerd/containerd.sock")
	connection, err := grpc.NewClient("passthrough:///containerd",
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", socket)
		}))
	if err != nil {
		return nil, err
	}
	return client.NewWithConn(connection, client.WithDefaultNamespace(containerdNamespace))
}

const containerdNamespace = "k8s.io"

// OnNode returns the machine's path of a file of the node. It follows no absolute symbolic link on the node.
func (c *Cluster) OnNode(path string) string {
	return filepath.Join(fmt.Sprintf("/proc/%d/root", c.state.Holder.PID), path)
}

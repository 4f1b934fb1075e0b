package test

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/wasmshim/containerd-shim-wasm/internal/testnode"
)

// nerdctl runs nerdctl on the node, with folders and networks of its own.
type nerdctl struct {
	node  *testnode.Node
	path  string
	flags []string
}

// do runs a command that must succeed, and returns its output.
func (n nerdctl) do(t *testing.T, args ...string) string {
	t.Helper()
	result := n.run(t, args...)
	if result.Code != 0 {
		t.Fatalf("nerdctl %s: %+v", strings.Join(args, " "), result)
	}
	return result.Stdout
}

// newNerdctl returns a nerdctl with one network, which nerdctl treats as the default network. The network has
// no plugins that change a host's firewall.
func newNerdctl(t *testing.T, node *testnode.Node) nerdctl {
	t.Helper()
	tools, err := testnode.Tools(t.Context(), "nerdctl", "cni-plugins")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	put(t, `{
  "cniVersion": "1.0.0",
  "name": "bridge",
  "nerdctlID": "17f29b073143d8cd97b5bbe492bdeffec1c5fee55cc1fe2112c8b9335f8b6121",
  "nerdctlLabels": {"nerdctl/default-network": "true"},
  "plugins": [{
    "type": "bridge",
    "bridge": "nerdctl0",
    "isGateway": true,
    "ipam": {"type": "host-local", "dataDir": "`+dir+`/addresses", "ranges": [[{"subnet": "10.4.0.0/24", "gateway": "10.4.0.1"}]]}
  }]
}
`, dir, "net.d", "nerdctl-bridge.conflist")
	return nerdctl{node: node, path: filepath.Join(tools[0], "nerdctl"), flags: []string{
		"--address", node.Address(), "--namespace", node.Namespace, "--data-root", filepath.Join(dir, "data"),
		"--cni-path", tools[1], "--cni-netconfpath", filepath.Join(dir, "net.d"), "--cgroup-manager", "cgroupfs",
	}}
}

func (n nerdctl) run(t *testing.T, args ...string) testnode.Result {
	t.Helper()
	command := exec.CommandContext(t.Context(), n.path, append(n.flags, args...)...)
	command.Env = append(os.Environ(), "CONTAINERD_SUPPRESS_DEPRECATION_WARNINGS=1")
	var stdout, stderr bytes.Buffer
	command.Stdout, command.Stderr = &stdout, &stderr
	err := command.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return testnode.Result{Stdout: stdout.String(), Stderr: stderr.String(), Code: command.ProcessState.ExitCode()}
}

// nerdctl adds hooks to every container, for its network and its hosts file.
func TestNerdctl(t *testing.T) {
	podNodes.EachVersion(t, func(t *testing.T, node *testnode.Node) {
		importTaskImages(t, node)
		node.NoLeaks(t)
		n := newNerdctl(t, node)
		for _, network := range []string{"none", "host", "bridge"} {
			got := n.run(t, "run", "--rm", "--pull", "never", "--net", network, "--runtime", runtime, tasksWasmImage, "say", "here", ",", "exit", "42")
			if got.Code != 42 || got.Stdout != "here\n" {
				t.Errorf("--net %s: %+v", network, got)
			}
		}
		n.do(t, "run", "-d", "--name", "stays", "--pull", "never", "--net", "bridge", "--runtime", runtime, tasksWasmImage, "say", "here", ",", "sleep", "1000")
		pid := strings.TrimSpace(n.do(t, "inspect", "-f", "{{.State.Pid}}", "stays"))
		address, err := exec.Command("nsenter", "-t", pid, "-n", "ip", "-o", "-4", "address", "show", "eth0").CombinedOutput()
		if err != nil || !strings.Contains(string(address), " 10.4.0.") {
			t.Errorf("its network: %v, %s", err, address)
		}
		waitFor(t, func() bool { return strings.Contains(n.do(t, "logs", "stays"), "here\nsleeping\n") }, "its output")
		if got := n.do(t, "exec", "stays", "/app.wasm", "say", "beside"); got != "beside\n" {
			t.Errorf("exec: %q", got)
		}
		n.do(t, "stop", "stays")
		if got := n.do(t, "inspect", "-f", "{{.State.Status}} {{.State.ExitCode}}", "stays"); got != "exited 143\n" {
			t.Errorf("stopped: %q", got)
		}
		n.do(t, "start", "stays")
		n.do(t, "rm", "-f", "stays")
	})
}

package testcluster

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/wasmshim/containerd-shim-wasm/internal/testnode"
)

// RuntimeLabel is the label that the RuntimeClass selects nodes by.
const RuntimeLabel = "wasm.shim/runtime"

const pauseImage = "registry.k8s.io/pause:3.10.1"

// writeConfigs writes what the parts read when they start, and the certificates.
func (c *Cluster) writeConfigs() error {
	if err := c.writeKeys(); err != nil {
		return err
	}
	for _, user := range []string{"admin", ControllerManager, Scheduler, Kubelet} {
		if err := os.WriteFile(c.clientConfig(user), c.kubeconfigOf(user), 0o600); err != nil {
			return err
		}
	}
	for path, text := range map[string]string{
		c.kubeconfig(): string(c.kubeconfigOf("admin")),
		filepath.Join(c.node(), "etc/containerd/config.toml"):     c.containerdConfig(),
		filepath.Join(c.node(), "etc/cni/net.d/10-pods.conflist"): cniConfig,
		filepath.Join(c.node(), "etc/kubernetes/kubelet.yaml"):    c.kubeletConfig(),
	} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			return err
		}
	}
	return nil
}

func (c *Cluster) clientConfig(user string) string { return filepath.Join(c.pki(), user+".kubeconfig") }

func (c *Cluster) kubeconfigOf(user string) []byte {
	return fmt.Appendf(nil, `apiVersion: v1
kind: Config
clusters:
- name: testcluster
  cluster: {server: %q, certificate-authority: %q}
users:
- name: user
  user: {client-certificate: %q, client-key: %q}
contexts:
- name: testcluster
  context: {cluster: testcluster, user: user}
current-context: testcluster
`, apiServer, c.cert(authority), c.cert(user), c.key(user))
}

// containerdConfig is the operator's configuration before our shim is installed: it has no Wasm runtime.
func (c *Cluster) containerdConfig() string {
	// Raising the priority of processes against the OOM killer needs CAP_SYS_RESOURCE, which test machines lack.
	if c.state.Containerd == "1.7" {
		return fmt.Sprintf(`version = 2
oom_score = 0
`+testnode.Timeouts+`
[debug]
  level = "debug"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = %q
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = %q
`, pauseImage, c.tool("cni-plugins", ""))
	}
	binDirs := fmt.Sprintf("bin_dirs = [%q]", c.tool("cni-plugins", ""))
	return fmt.Sprintf(`version = 3
oom_score = 0
`+testnode.Timeouts+`
[debug]
  level = "debug"
[plugins."io.containerd.cri.v1.images".pinned_images]
  sandbox = %q
[plugins."io.containerd.cri.v1.runtime"]
  restrict_oom_score_adj = true
  [plugins."io.containerd.cri.v1.runtime".cni]
    %s
`, pauseImage, binDirs)
}

// cniConfig puts pods on one bridge, whose address on the node is their gateway. They have no route to other
// networks.
const cniConfig = `{
  "cniVersion": "1.0.0",
  "name": "pods",
  "plugins": [{
    "type": "bridge",
    "bridge": "cni0",
    "isGateway": true,
    "ipam": {
      "type": "host-local",
      "ranges": [[{"subnet": "` + podSubnet + `"}]],
      "routes": [{"dst": "0.0.0.0/0"}]
    }
  }]
}
`

func (c *Cluster) kubeletConfig() string {
	return strings.NewReplacer(
		"CLIENT_CA", c.cert(authority),
		"SERVER_CERT", c.cert("kubelet-server"),
		"SERVER_KEY", c.key("kubelet-server"),
		"CGROUP", "/"+c.cgroup(),
		"NAMESERVER", dnsIP,
		"EVENTED", strconv.FormatBool(c.state.Evented),
	).Replace(`apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
authentication:
  anonymous: {enabled: false}
  webhook: {enabled: true}
  x509: {clientCAFile: "CLIENT_CA"}
authorization: {mode: Webhook}
tlsCertFile: "SERVER_CERT"
tlsPrivateKeyFile: "SERVER_KEY"
containerRuntimeEndpoint: unix:///run/containerd/containerd.sock
clusterDNS: ["NAMESERVER"]
clusterDomain: cluster.local
# There is no systemd. The cgroup is one of the cluster's own, so that all of its pods are known.
cgroupDriver: cgroupfs
cgroupRoot: "CGROUP"
enforceNodeAllocatable: []
# Adjusting it needs CAP_SYS_RESOURCE.
oomScoreAdj: 0
failSwapOn: false
# A full disk of the test machine is not what is tested, and imported images cannot be pulled again.
evictionHard: {}
imageGCHighThresholdPercent: 100
makeIPTablesUtilChains: false
featureGates: {EventedPLEG: EVENTED}
maxPods: 250
`)
}

// installShim runs the shim's own installation on the node, as docs/install.md describes it, and reports whether
// containerd must be restarted for it.
func (c *Cluster) installShim(ctx context.Context) (bool, error) {
	var text strings.Builder
	command := c.NodeCommand(ctx, c.state.Shim, "install",
		"--config", "/etc/containerd/config.toml", "--bin-dir", "/usr/local/bin", "--containerd", "/usr/local/bin/containerd")
	command.Stdout = &text
	if err := c.output(command); err != nil {
		return false, fmt.Errorf("%w\n%s", err, text.String())
	}
	if err := c.allowS3(); err != nil {
		return false, err
	}
	log, err := os.OpenFile(c.Log("install"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return false, err
	}
	defer log.Close()
	_, err = log.WriteString(text.String())
	return strings.Contains(text.String(), "must be restarted"), err
}

// allowS3 lets pods name the S3 server, which has no TLS, by annotation. They need credentials of their own.
func (c *Cluster) allowS3() error {
	path := filepath.Join(c.node(), "etc/containerd-shim-wasm/config.toml")
	text, err := os.ReadFile(path)
	if err != nil || strings.Contains(string(text), s3URL) {
		return err
	}
	text = fmt.Appendf(text, "\n[[s3]]\nendpoint = %q\nregion = %q\ndefault = true\n", s3URL, s3Region)
	return os.WriteFile(path, text, 0o644)
}

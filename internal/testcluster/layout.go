package testcluster

import (
	"crypto/sha256"
	"encoding/hex"
	"path/filepath"

	"github.com/wasmshim/containerd-shim-wasm/internal/repo"
)

// Addresses inside the cluster's network namespace. None of them exists on the machine.
const (
	nodeName   = "wasm-node"
	nodeIP     = "10.200.0.1"
	apiIP      = "10.96.0.1" // the address of the Service "kubernetes", on the loopback device
	dnsIP      = "10.96.0.10"
	podSubnet  = "10.244.0.0/16"
	serviceNet = "10.96.0.0/16"
	apiServer  = "https://" + apiIP + ":443"
)

// layout is where the cluster's files are on the machine.
type layout struct {
	repo string // root of the source tree
	dir  string // .cache/cluster
}

func findLayout() (layout, error) {
	root, err := repo.Root()
	if err != nil {
		return layout{}, err
	}
	dir, err := repo.Cache("cluster")
	return layout{repo: root, dir: dir}, err
}

func (l layout) stateFile() string  { return filepath.Join(l.dir, "state.json") }
func (l layout) logs() string       { return filepath.Join(l.dir, "logs") }
func (l layout) pki() string        { return filepath.Join(l.dir, "pki") }
func (l layout) etcd() string       { return filepath.Join(l.dir, "etcd") }
func (l layout) s3() string         { return filepath.Join(l.dir, "s3") }
func (l layout) kubeconfig() string { return filepath.Join(l.dir, "kubeconfig") }

// node is the folder that holds the node's /etc, /var and /usr/local/bin.
func (l layout) node() string { return filepath.Join(l.dir, "node") }

func (l layout) cert(name string) string { return filepath.Join(l.pki(), name+".crt") }
func (l layout) key(name string) string  { return filepath.Join(l.pki(), name+".key") }

// volatile is the folder of everything that ends with the cluster: all but the logs.
func (l layout) volatile() []string {
	return []string{l.stateFile(), l.pki(), l.etcd(), l.s3(), l.kubeconfig(), l.node()}
}

// cgroup is the name of the cgroup above all pods, one for each source tree.
func (l layout) cgroup() string {
	sum := sha256.Sum256([]byte(l.dir))
	return "testcluster-" + hex.EncodeToString(sum[:4])
}

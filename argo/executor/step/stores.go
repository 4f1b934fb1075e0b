package step

import (
	"errors"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/wasmshim/containerd-shim-wasm/argo/executor"
	"github.com/wasmshim/containerd-shim-wasm/argo/executor/artifact"
)

// secrets is where the kubelet mounts the secrets that the template's stores need (upstream's SecretVolMountPath).
const secrets = "/argo/secret"

// maxSecret bounds a key of a secret, in bytes: Kubernetes stores 1 MiB at most.
const maxSecret = 1 << 20

// openStore returns the store of an artifact. For one that names only a key, it is the template's archive.
func (s *step) openStore(at executor.Location) (artifact.Store, error) {
	whole, err := at.In(s.template.Archive)
	if err != nil {
		return nil, err
	}
	return artifact.Open(whole, s.secret, s.Log)
}

// secret returns the value of a key of a mounted secret. The kubelet's links within it are followed.
func (s *step) secret(name, key string) (string, error) {
	f, err := os.OpenFile(filepath.Join(s.Root+secrets, name, key), os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return "", err
	}
	text, err := readRegular(f, maxSecret)
	if err == nil && len(text) > maxSecret {
		err = &os.PathError{Op: "read", Path: f.Name(), Err: errors.New("it has more than 1 MiB")}
	}
	return string(text), err
}

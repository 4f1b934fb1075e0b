package shim

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/wasmshim/containerd-shim-wasm/artifact/request"
	"github.com/wasmshim/containerd-shim-wasm/config"
	"github.com/wasmshim/containerd-shim-wasm/worker/control"
)

// secretKinds are the kubelet's volumes that hold secrets. It makes them itself, and no container can write to them.
var secretKinds = []string{"kubernetes.io~secret", "kubernetes.io~projected"}

// volume returns the only mount of a secret that fits.
func (r *accessor) volume(fits func(specs.Mount) bool) (specs.Mount, error) {
	for _, m := range r.spec.Mounts {
		if slices.Contains(secretKinds, filepath.Base(filepath.Dir(m.Source))) && fits(m) {
			r.hidden = append(r.hidden, m.Source)
			return m, nil
		}
	}
	return specs.Mount{}, errors.New("the container mounts no such volume of a Secret (the whole volume, without subPath)")
}

// Keys of a Secret, as Argo's users, the node's own files and libraries for AWS name them.
var (
	accessKeys    = []string{"accesskey", "accessKey", "access_key", accessKeyEnv}
	secretKeys    = []string{"secretkey", "secretKey", "secret_key", secretKeyEnv}
	sessionTokens = []string{"sessiontoken", "sessionToken", "session_token", sessionTokenEnv}
	customerKeys  = []string{"customerkey", "customerKey", "customer_key"}
	certificates  = []string{"ca.crt"}
)

// secret returns the credentials of a volume.
func (r *accessor) secret(volume string) (control.Access, error) {
	if access, known := r.secrets[volume]; known {
		return access, nil
	}
	m, err := r.volume(func(m specs.Mount) bool { return filepath.Base(m.Source) == volume })
	var access control.Access
	if err == nil {
		access, err = r.readSecret(m)
	}
	if err != nil {
		return control.Access{}, fmt.Errorf("%s%s: %w", request.SecretSource, volume, err)
	}
	if r.secrets == nil {
		r.secrets = map[string]control.Access{}
	}
	r.secrets[volume] = access
	return access, nil
}

func (r *accessor) readSecret(m specs.Mount) (control.Access, error) {
	var keys config.Credentials
	for _, key := range []struct {
		value *string
		names []string
	}{{&keys.AccessKey, accessKeys}, {&keys.SecretKey, secretKeys}, {&keys.SessionToken, sessionTokens}, {&keys.CustomerKey, customerKeys}} {
		text, err := readOneOf(m, key.names, maxValue)
		if err != nil {
			return control.Access{}, err
		}
		*key.value = strings.TrimSpace(string(text))
	}
	if keys.AccessKey == "" || keys.SecretKey == "" {
		return control.Access{}, fmt.Errorf("the Secret has no keys %s and %s", accessKeys[0], secretKeys[0])
	}
	access, err := accessBy(keys)
	if err != nil {
		return control.Access{}, err
	}
	ca, err := readOneOf(m, certificates, maxOwnAuthorities)
	if err != nil || len(ca) == 0 {
		return access, err
	}
	access.Authorities, err = r.authorities.add(ca)
	return access, err
}

// readOneOf reads the first key that there is, nil if there is none.
func readOneOf(m specs.Mount, names []string, most int64) ([]byte, error) {
	for _, name := range names {
		text, err := readKey(m, name, most)
		if !errors.Is(err, os.ErrNotExist) {
			return text, err
		}
	}
	return nil, nil
}

// readKey reads a key of a Secret, of so many bytes at most, from the kubelet's volume. It follows the kubelet's links
// within that.
func readKey(m specs.Mount, name string, most int64) ([]byte, error) {
	root, err := os.OpenRoot(m.Source)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	f, err := root.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return readBounded(f, name, most)
}

// readBounded reads a regular file of so many bytes at most.
func readBounded(f *os.File, name string, most int64) ([]byte, error) {
	info, err := f.Stat()
	if err != nil || !info.Mode().IsRegular() {
		return nil, errors.Join(err, fmt.Errorf("%s is not a regular file", name))
	}
	var text bytes.Buffer
	text.Grow(int(min(info.Size(), most)) + bytes.MinRead)
	if _, err := text.ReadFrom(io.LimitReader(f, most+1)); err != nil {
		return nil, err
	}
	if int64(text.Len()) > most {
		return nil, fmt.Errorf("%s has more than the %d bytes that are allowed", name, most)
	}
	return text.Bytes(), nil
}

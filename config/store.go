package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"

	"github.com/pelletier/go-toml/v2"
	"golang.org/x/sys/unix"

	"github.com/wasmshim/containerd-shim-wasm/artifact/request"
)

// Store is an S3 store for pods that name artifacts by annotation.
type Store struct {
	// Endpoint is its URL. One with http:// sends artifacts, not the keys, in the clear.
	Endpoint string `toml:"endpoint"`
	// Default makes it the store of artifacts that name none.
	Default bool `toml:"default"`
	// Namespaces are the Kubernetes namespaces whose pods may use the entry; "*" is all. Empty is all, too, for an entry
	// without credentials.
	Namespaces []string `toml:"namespaces"`
	// Buckets are those that they may use with the entry's credentials, named by the rules of S3; empty is all.
	Buckets []string `toml:"buckets"`
	// KMSKeys are the keys that they may have objects encrypted with (SSE-KMS) by the entry's credentials, beside the store's
	// default one.
	KMSKeys []string `toml:"kms_keys"`
	// Credentials is the absolute path of a file with keys, which only root may read (see [LoadCredentials]). Without it
	// a pod needs credentials of its own.
	Credentials string `toml:"credentials"`
	Region      string `toml:"region"`
	// Style is how requests name a bucket: path or virtual, by default what the endpoint needs. For the entry's credentials
	// only it counts, and the default is path but for Amazon's stores.
	Style request.Style `toml:"style"`
	// CA is the absolute path of a file with the certificates of the authorities that the store's is checked against,
	// instead of the node's.
	CA string `toml:"ca"`
}

func (s *Store) validate() error {
	var err error
	if s.Endpoint, err = request.Endpoint(s.Endpoint); err != nil {
		return err
	}
	for _, path := range []struct{ key, value string }{{"credentials", s.Credentials}, {"ca", s.CA}} {
		if path.value != "" && !filepath.IsAbs(path.value) {
			return fmt.Errorf("%s %q is not an absolute path", path.key, path.value)
		}
	}
	if s.Style != request.AutoStyle {
		if err := s.Style.Check(); err != nil {
			return fmt.Errorf("style %w", err)
		}
	}
	for _, bucket := range s.Buckets {
		if err := request.CheckBucket(bucket); err != nil {
			return fmt.Errorf("buckets: %w", err)
		}
	}
	if err := request.CheckRegion(s.Region); err != nil {
		return err
	}
	if s.Credentials != "" && len(s.Namespaces) == 0 {
		return errors.New("credentials without namespaces: list the Kubernetes namespaces whose pods may use them, or \"*\"")
	}
	return nil
}

// Store returns the first store for the artifacts of a pod in a Kubernetes namespace that name an endpoint, or none, and
// a bucket.
func (c Config) Store(endpoint, namespace, bucket string) (Store, bool) {
	for _, s := range c.Stores {
		if (s.Endpoint == endpoint || endpoint == "" && s.Default) && s.serves(namespace, bucket) {
			return s, true
		}
	}
	return Store{}, false
}

// HasDefault reports whether pods in a Kubernetes namespace have a default store, for whatever buckets.
func (c Config) HasDefault(namespace string) bool {
	return slices.ContainsFunc(c.Stores, func(s Store) bool { return s.Default && s.isFor(namespace) })
}

func (s Store) serves(namespace, bucket string) bool {
	return s.isFor(namespace) && (len(s.Buckets) == 0 || slices.Contains(s.Buckets, bucket))
}

func (s Store) isFor(namespace string) bool {
	return len(s.Namespaces) == 0 || slices.Contains(s.Namespaces, "*") || slices.Contains(s.Namespaces, namespace)
}

// Credentials are keys of an S3 store.
type Credentials struct {
	AccessKey    string `toml:"access_key"`
	SecretKey    string `toml:"secret_key"`
	SessionToken string `toml:"session_token"`
	// CustomerKey is the 32 bytes for objects that the store encrypts by a customer's key (SSE-C), in base64.
	CustomerKey string `toml:"customer_key"`
}

// maxCredentials bounds a file of credentials, in bytes.
const maxCredentials = 64 << 10

// LoadCredentials reads a file of credentials, a TOML document. It refuses one that others than its owner may read, and
// one whose owner is not root.
func LoadCredentials(path string) (Credentials, error) {
	var c Credentials
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return c, fmt.Errorf("read the credentials: %w", err)
	}
	defer f.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return c, fmt.Errorf("read the credentials: %w", &os.PathError{Op: "stat", Path: path, Err: err})
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG || st.Mode&0o077 != 0 || st.Uid != 0 {
		return c, fmt.Errorf("the credentials in %s: it must be a file that only root can read (chown root, chmod 600)", path)
	}
	text, err := io.ReadAll(io.LimitReader(f, maxCredentials))
	if err != nil {
		return c, fmt.Errorf("read the credentials: %w", err)
	}
	if err := toml.NewDecoder(bytes.NewReader(text)).DisallowUnknownFields().Decode(&c); err != nil {
		// The text of a decoder's error may have a part of the file.
		return Credentials{}, fmt.Errorf("the credentials in %s are no TOML with the keys access_key, secret_key, session_token and customer_key", path)
	}
	if c.AccessKey == "" || c.SecretKey == "" {
		return Credentials{}, fmt.Errorf("the credentials in %s: access_key or secret_key is missing", path)
	}
	return c, nil
}

package shim

import (
	"cmp"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/wasmshim/containerd-shim-wasm/artifact/request"
	"github.com/wasmshim/containerd-shim-wasm/config"
	"github.com/wasmshim/containerd-shim-wasm/internal/environ"
	"github.com/wasmshim/containerd-shim-wasm/worker/control"
)

// accessor finds out how the artifacts of a container are got at. What it takes credentials from, the guest does not get:
// it leaves the variables and volumes out of the container's specification.
type accessor struct {
	settings  config.Config
	namespace string // of Kubernetes
	spec      *specs.Spec
	source    string // of credentials, by the pod's annotation
	used      []string
	hidden    []string // sources of mounts
}

// defaultEndpoint is the store of artifacts that name none, on a node that has no default.
const defaultEndpoint = "https://s3.amazonaws.com"

// access returns how to get at an artifact, and completes where it is.
func (r *accessor) access(a *request.Artifact) (control.Access, error) {
	store, listed := r.settings.Store(a.At.Endpoint, r.namespace, a.At.Bucket)
	if a.At.Endpoint == "" {
		a.At.Endpoint = defaultEndpoint
		if listed {
			a.At.Endpoint = store.Endpoint
		}
	}
	if strings.HasPrefix(a.At.Endpoint, "http://") && !listed {
		return control.Access{}, fmt.Errorf("the store %s has no TLS: the operator of the node allows it by a table [[s3]] with endpoint = %q in %s",
			a.At.Endpoint, a.At.Endpoint, r.settings.Source)
	}
	access, err := r.credentials(a, store)
	a.At.Region, a.At.Style = cmp.Or(a.At.Region, store.Region), cmp.Or(a.At.Style, store.Style)
	if err == nil && access.CA == "" && (access.Token != "" || !strings.HasPrefix(a.At.Endpoint, "http://")) {
		access.CA, err = authorities(store.CA)
	}
	return access, err
}

func (r *accessor) credentials(a *request.Artifact, store config.Store) (control.Access, error) {
	source := a.At.Credentials
	if source == "" {
		source = r.source
	}
	if volume, ok := strings.CutPrefix(source, request.SecretSource); ok {
		return r.secret(volume)
	}
	env := r.spec.Process.Env
	switch source {
	case request.AnonymousSource:
		return control.Access{}, nil
	case request.InstanceSource:
		return control.Access{Instance: true}, nil
	case request.EnvironmentSource:
		return r.environment()
	case request.IdentitySource:
		return r.identity()
	case request.NodeSource:
		return r.node(a, store)
	}
	switch {
	case environ.Get(env, "AWS_ACCESS_KEY_ID") != "":
		return r.environment()
	case environ.Get(env, "AWS_WEB_IDENTITY_TOKEN_FILE") != "":
		return r.identity()
	}
	return r.node(a, store)
}

// node returns the credentials that the operator has given to the pod's namespace.
func (r *accessor) node(a *request.Artifact, store config.Store) (control.Access, error) {
	if store.Credentials == "" {
		return control.Access{}, fmt.Errorf("there are no credentials for bucket %s of %s: the annotation %s of the pod names some (%sVOLUME, %s, %s, %s or %s), "+
			"or the operator of the node gives some to the namespace %q by a table [[s3]] in %s", a.At.Bucket, a.At.Endpoint, request.CredentialsAnnotation,
			request.SecretSource, request.EnvironmentSource, request.IdentitySource, request.InstanceSource, request.AnonymousSource, r.namespace, r.settings.Source)
	}
	if err := asListed(&a.At, store); err != nil {
		return control.Access{}, fmt.Errorf("the node's credentials for %s (a table [[s3]] in %s): %w", store.Endpoint, r.settings.Source, err)
	}
	keys, err := config.LoadCredentials(store.Credentials)
	if err != nil {
		return control.Access{}, err
	}
	return accessBy(keys)
}

// asListed has requests with the node's credentials made as the store's table says. A store that is asked in another style
// may take a part of the key for the bucket, which the table does not list.
func asListed(at *request.Place, store config.Store) error {
	if err := request.CheckBucket(at.Bucket); err != nil {
		return err
	}
	style := store.Style
	if style == request.AutoStyle && !isAmazons(store.Endpoint) {
		style = request.PathStyle
	}
	switch {
	case at.Style != request.AutoStyle && at.Style != style:
		return fmt.Errorf("option style=%s: the operator of the node decides it, by style in the table: leave the option out", at.Style)
	case at.Region != "" && at.Region != store.Region:
		return fmt.Errorf("option region=%s: the operator of the node decides it, by region in the table: leave the option out", at.Region)
	}
	at.Style, at.Region = style, store.Region
	return nil
}

// isAmazons reports whether an endpoint is in a domain in which only Amazon names hosts: its stores have virtual hosts.
func isAmazons(endpoint string) bool {
	u, err := url.Parse(endpoint)
	return err == nil && (strings.HasSuffix(u.Hostname(), ".amazonaws.com") || strings.HasSuffix(u.Hostname(), ".amazonaws.com.cn"))
}

func accessBy(keys config.Credentials) (control.Access, error) {
	customer, err := base64.StdEncoding.DecodeString(keys.CustomerKey)
	if err != nil {
		return control.Access{}, errors.New("the customer's key of the credentials is not base64")
	}
	return control.Access{AccessKey: keys.AccessKey, SecretKey: keys.SecretKey, SessionToken: keys.SessionToken, CustomerKey: customer}, nil
}

// Variables with credentials, which the usual libraries for AWS read.
const (
	accessKeyEnv    = "AWS_ACCESS_KEY_ID"
	secretKeyEnv    = "AWS_SECRET_ACCESS_KEY"
	sessionTokenEnv = "AWS_SESSION_TOKEN"
	roleEnv         = "AWS_ROLE_ARN"
	tokenFileEnv    = "AWS_WEB_IDENTITY_TOKEN_FILE"
	stsEnv          = "AWS_ENDPOINT_URL_STS"
	regionEnv       = "AWS_REGION"
)

func (r *accessor) environment() (control.Access, error) {
	env := r.spec.Process.Env
	access := control.Access{AccessKey: environ.Get(env, accessKeyEnv), SecretKey: environ.Get(env, secretKeyEnv), SessionToken: environ.Get(env, sessionTokenEnv)}
	if access.AccessKey == "" || access.SecretKey == "" {
		return access, fmt.Errorf("the container has no variables %s and %s", accessKeyEnv, secretKeyEnv)
	}
	r.used = append(r.used, accessKeyEnv, secretKeyEnv, sessionTokenEnv)
	return access, nil
}

// identity returns a web identity, as Amazon's EKS gives one to pods by two variables and a volume.
func (r *accessor) identity() (control.Access, error) {
	env := r.spec.Process.Env
	file := environ.Get(env, tokenFileEnv)
	access := control.Access{RoleARN: environ.Get(env, roleEnv)}
	if access.RoleARN == "" || !path.IsAbs(file) {
		return access, fmt.Errorf("the container has no variables %s and %s for a web identity", roleEnv, tokenFileEnv)
	}
	var err error
	if access.STS, err = tokenService(env); err != nil {
		return access, err
	}
	dir, name := path.Split(path.Clean(file))
	m, err := r.volume(func(m specs.Mount) bool { return path.Clean(m.Destination) == path.Clean(dir) })
	if err != nil {
		return access, fmt.Errorf("%s: %w", tokenFileEnv, err)
	}
	token, err := readKey(m, name)
	if err != nil {
		return access, fmt.Errorf("%s: %w", tokenFileEnv, err)
	}
	access.Token = strings.TrimSpace(token)
	r.used = append(r.used, roleEnv, tokenFileEnv)
	return access, nil
}

// tokenService returns the URL of the service that takes the container's web identity: Amazon's, or the one that the
// container names.
func tokenService(env []string) (string, error) {
	named := environ.Get(env, stsEnv)
	if named == "" {
		region := environ.Get(env, regionEnv)
		if region == "" {
			return "https://sts.amazonaws.com", nil
		}
		if err := request.CheckRegion(region); err != nil {
			return "", fmt.Errorf("%s: %w", regionEnv, err)
		}
		return "https://sts." + region + ".amazonaws.com", nil
	}
	service, err := request.Endpoint(named)
	if err != nil {
		return "", fmt.Errorf("%s: %w", stsEnv, err)
	}
	if !strings.HasPrefix(service, "https://") {
		return "", fmt.Errorf("%s: a token is sent only to https://", stsEnv)
	}
	return service, nil
}

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
	m, err := r.volume(func(m specs.Mount) bool { return filepath.Base(m.Source) == volume })
	if err != nil {
		return control.Access{}, fmt.Errorf("%s%s: %w", request.SecretSource, volume, err)
	}
	var keys config.Credentials
	var ca string
	for _, key := range []struct {
		value *string
		names []string
	}{{&keys.AccessKey, accessKeys}, {&keys.SecretKey, secretKeys}, {&keys.SessionToken, sessionTokens}, {&keys.CustomerKey, customerKeys}, {&ca, certificates}} {
		if *key.value, err = readOneOf(m, key.names); err != nil {
			return control.Access{}, fmt.Errorf("%s%s: %w", request.SecretSource, volume, err)
		}
	}
	if keys.AccessKey == "" || keys.SecretKey == "" {
		return control.Access{}, fmt.Errorf("%s%s: the Secret has no keys %s and %s", request.SecretSource, volume, accessKeys[0], secretKeys[0])
	}
	access, err := accessBy(keys)
	access.CA = ca
	return access, err
}

func readOneOf(m specs.Mount, names []string) (string, error) {
	for _, name := range names {
		text, err := readKey(m, name)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		return strings.TrimSpace(text), err
	}
	return "", nil
}

// maxKey bounds a key of a Secret, in bytes: Kubernetes stores 1 MiB at most.
const maxKey = 1 << 20

// readKey reads a key of a Secret from the kubelet's volume. It follows the kubelet's links within that.
func readKey(m specs.Mount, name string) (string, error) {
	root, err := os.OpenRoot(m.Source)
	if err != nil {
		return "", err
	}
	defer root.Close()
	f, err := root.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return "", err
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		return "", errors.Join(err, fmt.Errorf("%s is not a regular file", name))
	}
	text, err := io.ReadAll(io.LimitReader(f, maxKey))
	return string(text), err
}

// hide takes what credentials were taken from out of the container's specification.
func (r *accessor) hide() {
	process := *r.spec.Process
	process.Env = withoutVariables(process.Env, r.used)
	r.spec.Process = &process
	r.spec.Mounts = slices.DeleteFunc(slices.Clone(r.spec.Mounts), func(m specs.Mount) bool { return slices.Contains(r.hidden, m.Source) })
}

// withoutVariables returns an environment without some variables.
func withoutVariables(env, names []string) []string {
	return slices.DeleteFunc(slices.Clone(env), func(pair string) bool {
		name, _, _ := strings.Cut(pair, "=")
		return slices.Contains(names, name)
	})
}

// authorityFiles are where distributions have the certificates of authorities (crypto/x509/root_linux.go).
var authorityFiles = []string{
	"/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/ca-bundle.pem", "/etc/pki/tls/cacert.pem",
	"/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem", "/etc/ssl/cert.pem",
}

// maxAuthorities bounds the certificates, in bytes.
const maxAuthorities = 4 << 20

// authorities returns the certificates that stores are checked against: those of a file that the operator has named, or
// the node's.
func authorities(named string) (string, error) {
	files := authorityFiles
	if named != "" {
		files = []string{named}
	}
	var failed error
	for _, name := range files {
		f, err := os.Open(name)
		if err != nil {
			failed = err
			continue
		}
		defer f.Close()
		text, err := io.ReadAll(io.LimitReader(f, maxAuthorities))
		return string(text), err
	}
	return "", fmt.Errorf("read the certificates of authorities, which the node has nowhere (install ca-certificates): %w", failed)
}

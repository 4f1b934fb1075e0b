package shim

import (
	"cmp"
	"encoding/base64"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

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

	secrets     map[string]control.Access // by the name of a volume
	authorities authorities
}

// defaultEndpoint is the store of artifacts that name none, on a node that has no default.
const defaultEndpoint = "https://s3.amazonaws.com"

// access returns how to get at an artifact, and completes where it is.
func (r *accessor) access(a *request.Artifact) (control.Access, error) {
	store, listed := r.settings.Store(a.At.Endpoint, r.namespace, a.At.Bucket)
	if a.At.Endpoint == "" {
		if !listed && r.settings.HasDefault(r.namespace) {
			// It is not looked for at Amazon's, with the keys of another store.
			return control.Access{}, fmt.Errorf("the node's default store is not for bucket %s: name the store by the option endpoint=https://HOST, "+
				"or have the operator of the node list the bucket in a table [[s3]] in %s", a.At.Bucket, r.settings.Source)
		}
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
	if err != nil {
		return control.Access{}, err
	}
	a.At.Region, a.At.Style = cmp.Or(a.At.Region, store.Region), cmp.Or(a.At.Style, store.Style)
	if access.Authorities == 0 && (access.Token != "" || !strings.HasPrefix(a.At.Endpoint, "http://")) {
		if access.Authorities, err = r.authorities.ofNode(store.CA); err != nil {
			return control.Access{}, err
		}
	}
	return access, checkValues(access)
}

// maxValue bounds each value of credentials, in bytes: an order has those of 64 artifacts. The longest that are in use are
// tokens, of some 2000 bytes.
const maxValue = 8 << 10

func checkValues(a control.Access) error {
	for _, value := range []string{a.AccessKey, a.SecretKey, a.SessionToken, a.RoleARN, a.Token, a.STS} {
		if len(value) > maxValue {
			return fmt.Errorf("a value of its credentials has %d bytes: %d are allowed", len(value), maxValue)
		}
	}
	return nil
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
	if key := at.Encryption.KeyID; key != "" && !slices.Contains(store.KMSKeys, key) {
		return fmt.Errorf("option sse=kms:%s: the table does not list the key, by kms_keys", key)
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

package shim

import (
	"fmt"
	"path"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/wasmshim/containerd-shim-wasm/artifact/request"
	"github.com/wasmshim/containerd-shim-wasm/internal/environ"
	"github.com/wasmshim/containerd-shim-wasm/worker/control"
)

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
	token, err := readKey(m, name, maxValue)
	if err != nil {
		return access, fmt.Errorf("%s: %w", tokenFileEnv, err)
	}
	access.Token = strings.TrimSpace(string(token))
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

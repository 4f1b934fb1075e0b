package shim

import (
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/wasmshim/containerd-shim-wasm/artifact/request"
	"github.com/wasmshim/containerd-shim-wasm/config"
	"github.com/wasmshim/containerd-shim-wasm/worker/control"
)

// accessTo returns how a pod of the namespace team gets at an artifact on a node with these tables, and where that is.
func accessTo(t *testing.T, tables, artifact string) (request.Place, control.Access, error) {
	t.Helper()
	keys := filepath.Join(t.TempDir(), "keys.toml")
	if err := os.WriteFile(keys, []byte("access_key = \"node's\"\nsecret_key = \"secret\"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	settings, err := config.Parse([]byte(strings.ReplaceAll(tables, "KEYS", keys)))
	if err != nil {
		t.Fatal(err)
	}
	settings.Source = "config.toml"
	all, err := request.Parse(map[string]string{request.Prefix + "x": artifact}, "main")
	if err != nil {
		return request.Place{}, control.Access{}, err
	}
	r := &accessor{settings: settings, namespace: "team", spec: &specs.Spec{Process: &specs.Process{}}}
	access, err := r.access(&all[0])
	return all[0].At, access, err
}

const listed = `
[[s3]]
endpoint = "https://store.example.org"
default = true
namespaces = ["team"]
buckets = ["team-data"]
credentials = "KEYS"
`

// The node's credentials go to the stores, buckets and namespaces of the tables, however a pod spells what it asks for.
func TestNodeCredentialsAsListed(t *testing.T) {
	const none = "there are no credentials for bucket"
	amazon := strings.Replace(listed, "store.example.org", "s3.amazonaws.com", 1)
	virtual := listed + "style = \"virtual\"\nregion = \"eu\"\n"
	every := strings.Replace(listed, `buckets = ["team-data"]`, "", 1)
	for _, tc := range []struct {
		name, tables, artifact string
		style                  request.Style
		want                   string // in the error
	}{
		{"as listed", listed, "s3://team-data/k", request.PathStyle, ""},
		{"with the endpoint", listed, "s3://team-data/k?endpoint=HTTPS://Store.Example.org:443/", request.PathStyle, ""},
		{"what is so already", listed, "s3://team-data/k?style=path", request.PathStyle, ""},
		{"Amazon's", amazon, "s3://team-data/k", request.AutoStyle, ""},
		{"virtual hosts", virtual, "s3://team-data/k?region=eu", request.VirtualStyle, ""},
		{"the key's first part as the bucket", listed, "s3://team-data/others/k?style=virtual", "", "option style=virtual: the operator of the node decides it"},
		{"a host's name as the bucket", virtual, "s3://team-data/k?style=path", "", "option style=path: the operator"},
		{"style for Amazon's", amazon, "s3://team-data/k?style=path", "", "option style=path: the operator"},
		{"region", listed, "s3://team-data/k?region=eu", "", "option region=eu: the operator of the node decides it"},
		{"another region", virtual, "s3://team-data/k?region=us", "", "option region=us: the operator"},
		{"region with a host", listed, "s3://team-data/k?region=x.example.org/", "", "no name of a region"},
		{"another bucket", listed, "s3://others/k", "", "the node's default store is not for bucket others"},
		{"another bucket, own credentials", listed, "s3://others/k?credentials=anonymous", "", "the node's default store is not for bucket others"},
		{"another bucket of the store", listed, "s3://others/k?endpoint=https://store.example.org", "", none},
		{"another's namespace", strings.Replace(listed, "team\"]", "other\"]", 1), "s3://team-data/k", "", none},
		{"dot at the bucket's end", every, "s3://team-data./k", "", "no name of a bucket by the rules of S3"},
		{"capitals", every, "s3://Team-data/k", "", "no name of a bucket by the rules of S3"},
		{"underscore", every, "s3://team_data/k", "", "no name of a bucket by the rules of S3"},
		{"access point", every, "s3://team-abc-s3alias/k", "", "no access point"},
		{"zone's bucket", every, "s3://team--use1-az4--x-s3/k", "", "no access point"},
		{"address", every, "s3://127.0.0.1/k", "", "no name of a bucket by the rules of S3"},
		{"percent", every, "s3://team%2Ddata/k", "", "no name of a bucket"},
		{"user", listed, "s3://user@team-data/k", "", "no name of a bucket"},
		{"port", listed, "s3://team-data:80/k", "", "no name of a bucket"},
		{"another port", listed, "s3://team-data/k?endpoint=https://store.example.org:8443", "", none},
		{"port with zeros", listed, "s3://team-data/k?endpoint=https://store.example.org:0443", "", none},
		{"dot at the host's end", listed, "s3://team-data/k?endpoint=https://store.example.org.", "", none},
		{"host with a bucket", listed, "s3://team-data/k?endpoint=https://others.store.example.org", "", none},
		{"user of the endpoint", listed, "s3://team-data/k?endpoint=https://store.example.org@evil.example.org", "", "more than a scheme"},
		{"path of the endpoint", listed, "s3://team-data/k?endpoint=https://store.example.org/others", "", "more than a scheme"},
		{"query of the endpoint", listed, "s3://team-data/k?endpoint=https://store.example.org?x", "", "more than a scheme"},
		{"another's key", listed, "s3://team-data/k?sse=kms:other", "", "option sse=kms:other: the table does not list the key"},
		{"a key that is listed", listed + "kms_keys = [\"ours\"]\n", "s3://team-data/k?sse=kms:ours", request.PathStyle, ""},
		{"the store's key", listed, "s3://team-data/k?sse=kms", request.PathStyle, ""},
		{"no TLS", listed, "s3://team-data/k?endpoint=http://store.example.org", "", "has no TLS"},
		{"key out of the bucket", listed, "s3://team-data/../others/k", "", `has "." or ".." as a part`},
		{"key out of the bucket, encoded", listed, "s3://team-data/%2e%2e/others/k", "", `has "." or ".." as a part`},
		{"key with an empty part", listed, "s3://team-data//others/k", "", "has an empty part"},
		{"options that make a path", listed, "s3://team-data/k?versionId=1%26x=..%2F", request.PathStyle, ""}, // it is escaped again
	} {
		at, access, err := accessTo(t, tc.tables, tc.artifact+" -> /in/x")
		if tc.want != "" {
			if err == nil || !strings.Contains(err.Error(), tc.want) || access.SecretKey != "" {
				t.Errorf("%s: got keys %q, %v; want an error with %q", tc.name, access.AccessKey, err, tc.want)
			}
			continue
		}
		if err != nil || access.AccessKey != "node's" || at.Style != tc.style || at.Bucket != "team-data" {
			t.Errorf("%s: got %+v, keys %q, %v", tc.name, at, access.AccessKey, err)
		}
	}
}

// A pod's own credentials may go anywhere, in any style.
func TestOwnCredentialsAsAsked(t *testing.T) {
	at, access, err := accessTo(t, listed, "s3://team-data/k?credentials=anonymous&style=virtual&region=us -> /in/x")
	if err != nil || access.AccessKey != "" || at.Style != request.VirtualStyle || at.Region != "us" {
		t.Errorf("got %+v, keys %q, %v", at, access.AccessKey, err)
	}
}

// volumeOf makes a volume of the kubelet with keys, and returns the mount of it.
func volumeOf(t *testing.T, kind, name, at string, keys map[string]string) specs.Mount {
	t.Helper()
	source := filepath.Join(t.TempDir(), kind, name)
	if err := os.MkdirAll(source, 0o755); err != nil {
		t.Fatal(err)
	}
	for key, value := range keys {
		if err := os.WriteFile(filepath.Join(source, key), []byte(value), 0o400); err != nil {
			t.Fatal(err)
		}
	}
	return specs.Mount{Destination: at, Source: source}
}

// A container's variables choose who gets its own token, and nothing of what an instance's credentials are asked for.
func TestIdentityAsTheContainerHas(t *testing.T) {
	const role, file = "AWS_ROLE_ARN=arn", "AWS_WEB_IDENTITY_TOKEN_FILE=/token/token"
	token := volumeOf(t, "kubernetes.io~projected", "token", "/token", map[string]string{"token": "the token\n"})
	plain := volumeOf(t, "kubernetes.io~empty-dir", "token", "/token", map[string]string{"token": "the token"})
	outside := volumeOf(t, "kubernetes.io~projected", "token", "/token", nil)
	if err := os.Symlink("/etc/hostname", filepath.Join(outside.Source, "token")); err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		env   []string
		mount specs.Mount
		sts   string
		want  string // in the error
	}{
		"Amazon's":          {[]string{role, file}, token, "https://sts.amazonaws.com", ""},
		"a region's":        {[]string{role, file, "AWS_REGION=eu-west-1"}, token, "https://sts.eu-west-1.amazonaws.com", ""},
		"another":           {[]string{role, file, "AWS_ENDPOINT_URL_STS=https://sts.example.org:8443/"}, token, "https://sts.example.org:8443", ""},
		"without TLS":       {[]string{role, file, "AWS_ENDPOINT_URL_STS=http://sts.example.org"}, token, "", "only to https://"},
		"with a user":       {[]string{role, file, "AWS_ENDPOINT_URL_STS=https://sts.amazonaws.com@example.org"}, token, "", "more than a scheme"},
		"with a path":       {[]string{role, file, "AWS_ENDPOINT_URL_STS=https://example.org/x?y"}, token, "", "more than a scheme"},
		"region of a host":  {[]string{role, file, "AWS_REGION=example.org/"}, token, "", "no name of a region"},
		"no volume":         {[]string{role, file}, specs.Mount{Destination: "/other"}, "", "mounts no such volume"},
		"not the kubelet's": {[]string{role, file}, plain, "", "mounts no such volume"},
		"a link outside":    {[]string{role, file}, outside, "", "token"},
		"another folder":    {[]string{role, "AWS_WEB_IDENTITY_TOKEN_FILE=/token/../etc/passwd"}, token, "", "mounts no such volume"},
	} {
		r := &accessor{spec: &specs.Spec{Process: &specs.Process{Env: tc.env}, Mounts: []specs.Mount{tc.mount}}}
		access, err := r.credentials(&request.Artifact{At: request.Place{Credentials: request.IdentitySource}}, config.Store{})
		if tc.want != "" {
			if err == nil || !strings.Contains(err.Error(), tc.want) || access.Token != "" {
				t.Errorf("%s: got %+v, %v; want an error with %q", name, access, err, tc.want)
			}
			continue
		}
		if want := (control.Access{RoleARN: "arn", Token: "the token", STS: tc.sts}); err != nil || !reflect.DeepEqual(access, want) {
			t.Errorf("%s: got %+v, %v; want %+v", name, access, err, want)
		}
	}
	r := &accessor{spec: &specs.Spec{Process: &specs.Process{Env: []string{
		"AWS_EC2_METADATA_SERVICE_ENDPOINT=http://127.0.0.1", "AWS_CONTAINER_CREDENTIALS_FULL_URI=http://127.0.0.1", "AWS_CONTAINER_AUTHORIZATION_TOKEN=x",
	}}}}
	access, err := r.credentials(&request.Artifact{At: request.Place{Credentials: request.InstanceSource}}, config.Store{})
	if err != nil || !reflect.DeepEqual(access, control.Access{Instance: true}) {
		t.Errorf("an instance's: got %+v, %v", access, err)
	}
	if env := (&artifactProgram{}).env(); !slices.Equal(env, []string{"WASM_WORKER_ROLE=serve-artifacts"}) {
		t.Errorf("the program has the environment %q", env)
	}
}

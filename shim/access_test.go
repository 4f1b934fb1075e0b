package shim

import (
	"os"
	"path/filepath"
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
		{"another bucket", listed, "s3://others/k", "", none},
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

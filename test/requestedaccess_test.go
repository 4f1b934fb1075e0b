package test

import (
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/pkg/oci"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/wasmshim/containerd-shim-wasm/internal/testguest"
	"github.com/wasmshim/containerd-shim-wasm/internal/testnode"
	"github.com/wasmshim/containerd-shim-wasm/internal/tests3"
)

// secretVolume is a volume of a Secret as the kubelet makes it.
func secretVolume(t *testing.T, kind, name string, keys map[string]string) string {
	t.Helper()
	volume := filepath.Join(t.TempDir(), "volumes", kind, name)
	if err := os.MkdirAll(volume+"/..2026", 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("..2026", volume+"/..data"); err != nil {
		t.Fatal(err)
	}
	for key, value := range keys {
		if err := os.WriteFile(filepath.Join(volume, "..2026", key), []byte(value), 0o400); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink("..data/"+key, filepath.Join(volume, key)); err != nil {
			t.Fatal(err)
		}
	}
	return volume
}

// moduleFolder returns a folder with the module of the image.
func moduleFolder(t *testing.T) string {
	t.Helper()
	folder := t.TempDir()
	module, err := os.ReadFile(testguest.Build(t, "probe"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(folder, "app.wasm"), module, 0o644); err != nil {
		t.Fatal(err)
	}
	return folder
}

// serveSTS answers a web identity's token with the store's keys. It returns its address and the certificate of its
// authority.
func serveSTS(t *testing.T, token string) (url, authority string) {
	t.Helper()
	s := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.FormValue("WebIdentityToken") != token || r.FormValue("RoleArn") != "arn:aws:iam::1:role/reader" {
			http.Error(w, "denied", http.StatusForbidden)
			return
		}
		fmt.Fprintf(w, `<AssumeRoleWithWebIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><AssumeRoleWithWebIdentityResult><Credentials>`+
			`<AccessKeyId>%s</AccessKeyId><SecretAccessKey>%s</SecretAccessKey><Expiration>2099-01-01T00:00:00Z</Expiration>`+
			`</Credentials></AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>`, tests3.Access, tests3.Secret)
	}))
	t.Cleanup(s.Close)
	return s.URL, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}))
}

// A pod's own credentials serve its artifacts, and neither its guest nor an exec gets to see them.
func TestRequestedArtifactsHideCredentials(t *testing.T) {
	eachVersionWithTasks(t, func(t *testing.T, node *testnode.Node) {
		importArgoImages(t, node)
		p := newRequestingPod(t, node, map[string]string{"bucket/data.csv": "data"})
		sts, authority := serveSTS(t, "the token")
		ca := filepath.Join(t.TempDir(), "ca.pem")
		if err := os.WriteFile(ca, []byte(authority), 0o644); err != nil {
			t.Fatal(err)
		}
		// The node has no credentials for the pod.
		config := regexp.MustCompile(`(?m)^(namespaces|credentials) = .*$`).ReplaceAllString(p.config(), "") + fmt.Sprintf("ca = %q\n", ca)
		keys := []string{"AWS_ACCESS_KEY_ID=" + tests3.Access, "AWS_SECRET_ACCESS_KEY=" + tests3.Secret, "OTHER=kept"}
		mount := func(source string) oci.SpecOpts {
			return oci.WithMounts([]specs.Mount{{Destination: "/hidden", Type: "bind", Source: source, Options: []string{"rbind", "ro"}}})
		}
		secret := mount(secretVolume(t, "kubernetes.io~secret", "s3", map[string]string{"accesskey": tests3.Access + "\n", "secretkey": tests3.Secret}))
		token := mount(secretVolume(t, "kubernetes.io~projected", "aws-iam-token", map[string]string{"token": "the token"}))
		// To find a module on a volume, all volumes are mounted first.
		modules := oci.WithMounts([]specs.Mount{{Destination: "/modules", Type: "bind", Source: moduleFolder(t), Options: []string{"rbind", "ro"}}})
		identity := []string{"AWS_ROLE_ARN=arn:aws:iam::1:role/reader", "AWS_WEB_IDENTITY_TOKEN_FILE=/hidden/token", "AWS_ENDPOINT_URL_STS=" + sts, "OTHER=kept"}
		for name, tc := range map[string]struct {
			source string
			more   oci.SpecOpts
			module string // its path, "" for that of the image
		}{
			"environment":              {"environment", oci.WithEnv(keys), ""},
			"environment, unasked":     {"", oci.WithEnv(keys), ""},
			"secret":                   {"secret:s3", oci.Compose(secret, oci.WithEnv([]string{"OTHER=kept"})), ""},
			"web identity":             {"web-identity", oci.Compose(token, oci.WithEnv(identity)), ""},
			"web identity, unasked":    {"", oci.Compose(token, oci.WithEnv(identity)), ""},
			"secret, module elsewhere": {"secret:s3", oci.Compose(secret, modules, oci.WithEnv([]string{"OTHER=kept"})), "/modules/app.wasm"},
			"token, module elsewhere":  {"", oci.Compose(token, modules, oci.WithEnv(identity)), "/modules/app.wasm"},
		} {
			t.Run(name, func(t *testing.T) {
				annotation := oci.WithAnnotations(map[string]string{"wasm.shim/artifact-credentials": tc.source})
				if tc.source == "" {
					annotation = oci.Compose()
				}
				args := []string{"read", "/in/x", ",", "env", ",", "sleep", "1000"}
				if tc.module != "" {
					tc.more = oci.Compose(tc.more, oci.WithProcessArgs(append([]string{tc.module}, args...)...))
				}
				k, err := p.create(config, map[string]string{"x": "s3://bucket/data.csv -> /in/x"}, args, tc.more, annotation)
				if err != nil {
					t.Fatal(err)
				}
				k.start()
				k.output.await(t, "sleeping")
				_, env := k.finish(k.exec([]string{argoWasm.probe(), "env"}, nil))
				_, ls := k.finish(k.exec([]string{argoWasm.probe(), "ls", "/hidden"}, nil))
				seen := k.output.String() + env
				if !strings.Contains(seen, "data") || strings.Count(seen, "OTHER=kept") != 2 {
					t.Errorf("the guest and its exec saw\n%s", seen)
				}
				for _, hidden := range []string{tests3.Secret, "AWS_SECRET", "AWS_ROLE", "AWS_WEB", "the token"} {
					if strings.Contains(seen, hidden) {
						t.Errorf("the guest or its exec saw %q:\n%s", hidden, seen)
					}
				}
				if strings.Contains(ls, "key") || strings.Contains(ls, "token") {
					t.Errorf("the guest saw the volume: %s", ls)
				}
				k.remove()
				p.expectNothingLeft()
			})
		}
	})
}

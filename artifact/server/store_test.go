package server

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"

	"github.com/wasmshim/containerd-shim-wasm/artifact/request"
	"github.com/wasmshim/containerd-shim-wasm/worker/control"
)

// seen are the requests that a server has got.
type seen struct {
	mu  sync.Mutex
	all []string
}

func (s *seen) note(r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all = append(s.all, r.Method+" "+r.Host+" "+r.RequestURI)
}

// elsewhere is a server to which nothing should go.
func elsewhere(t *testing.T, start func(http.Handler) *httptest.Server) (string, *seen) {
	t.Helper()
	var got seen
	s := start(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { got.note(r) }))
	t.Cleanup(s.Close)
	return s.URL, &got
}

// A store that redirects a request does not have it go to another server, with its signature or a customer's key.
func TestRedirectsOfStores(t *testing.T) {
	url, others := elsewhere(t, httptest.NewServer)
	for _, status := range []int{301, 302, 303, 307, 308} {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, url+r.RequestURI, status) }))
		t.Cleanup(s.Close)
		client, err := connect(control.Serve{}, control.ServedArtifact{
			Artifact: request.Artifact{At: request.Place{Endpoint: s.URL, Region: "eu"}},
			Access:   control.Access{AccessKey: "key", SecretKey: "secret", SessionToken: "token"},
		})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := client.StatObject(t.Context(), "bucket", "k", minio.StatObjectOptions{}); err == nil {
			t.Errorf("%d: a HEAD succeeded", status)
		}
		if _, err := client.Client.PutObject(t.Context(), "bucket", "k", strings.NewReader("x"), 1, minio.PutObjectOptions{}); err == nil {
			t.Errorf("%d: a PUT succeeded", status)
		}
	}
	if len(others.all) > 0 {
		t.Errorf("another server has got %v", others.all)
	}
}

// Whatever a request has for a bucket and a key, the store sees that bucket and no other.
func TestRequestsNameTheirBucket(t *testing.T) {
	var got seen
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { got.note(r); w.WriteHeader(http.StatusNotFound) }))
	t.Cleanup(s.Close)
	client, err := connect(control.Serve{}, control.ServedArtifact{
		Artifact: request.Artifact{At: request.Place{Endpoint: s.URL, Region: "eu", Style: request.PathStyle}},
		Access:   control.Access{AccessKey: "key", SecretKey: "secret"},
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"others/k", "%2e%2e/others/k", `..\others`, "a?b=c", "a#b", "a&b", "a b", "@others", ":80/k"} {
		if _, err := client.StatObject(t.Context(), "bucket", key, minio.StatObjectOptions{VersionID: "1&uploads=../x"}); err == nil {
			t.Errorf("%s is there", key)
		}
	}
	host := strings.TrimPrefix(s.URL, "http://")
	for _, r := range got.all {
		if !strings.HasPrefix(r, "HEAD "+host+" /bucket/") || !strings.HasSuffix(r, "?versionId=1%26uploads%3D..%2Fx") || strings.Contains(r, "/../") {
			t.Errorf("the store has got %s", r)
		}
	}
	if len(got.all) != 9 {
		t.Errorf("the store has got %d requests", len(got.all))
	}
}

const stsAnswer = `<AssumeRoleWithWebIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><AssumeRoleWithWebIdentityResult><Credentials>` +
	`<AccessKeyId>key</AccessKeyId><SecretAccessKey>secret</SecretAccessKey><SessionToken>session</SessionToken><Expiration>2099-01-01T00:00:00Z</Expiration>` +
	`</Credentials></AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>`

// A web identity is exchanged at the service that is named, whose certificate is checked, and its token goes nowhere else.
func TestTokensStay(t *testing.T) {
	url, others := elsewhere(t, httptest.NewTLSServer)
	var redirect bool
	s := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case redirect:
			http.Redirect(w, r, url, http.StatusTemporaryRedirect)
		case r.FormValue("WebIdentityToken") != "the token" || r.FormValue("RoleArn") != "arn":
			http.Error(w, "denied", http.StatusForbidden)
		default:
			_, _ = fmt.Fprint(w, stsAnswer)
		}
	}))
	t.Cleanup(s.Close)
	access := control.Access{RoleARN: "arn", Token: "the token", STS: s.URL}
	get := func(authorities []byte) (string, error) {
		keys, err := credentialsOf(access, authorities)
		if err != nil {
			t.Fatal(err)
		}
		value, err := keys.GetWithContext(nil)
		return value.AccessKeyID + value.SecretAccessKey + value.SessionToken, err
	}
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})
	if got, err := get(ca); got != "keysecretsession" || err != nil {
		t.Errorf("got %q, %v", got, err)
	}
	redirect = true
	if got, err := get(ca); err == nil {
		t.Errorf("after a redirect, got %q", got)
	}
	redirect = false
	if got, err := get(authority(t)); err == nil {
		t.Errorf("by another authority, got %q", got)
	}
	if len(others.all) > 0 {
		t.Errorf("another server has got %v", others.all)
	}
}

// authority makes a certificate that no service has.
func authority(t *testing.T) []byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true}
	raw, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: raw})
}

// instanceEnv has the process ask the metadata service of its own network namespace.
const instanceEnv = "ARTIFACT_TEST_INSTANCE"

const metadataHost = "169.254.169.254"

// An instance's credentials come by a session from the metadata service at its own address, which nothing can change, and
// whose redirects are not followed.
func TestInstance(t *testing.T) {
	for kind, want := range map[string]string{"answers": "keysecretsession <nil>", "redirects": "302"} {
		cmd := exec.Command("/proc/self/exe")
		cmd.Env = append(os.Environ(), instanceEnv+"="+kind)
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
		out, err := cmd.CombinedOutput()
		if err != nil || !strings.Contains(string(out), want) || strings.Contains(string(out), "elsewhere") {
			t.Errorf("%s: got %s, %v; want %s", kind, out, err, want)
		}
	}
}

// instanceMain is called first in TestMain. It does not return in the process that TestInstance starts.
func instanceMain() {
	if kind := os.Getenv(instanceEnv); kind != "" {
		fmt.Println(askInstance(kind))
		os.Exit(0)
	}
}

// askInstance serves metadata in a network namespace of its own, as Amazon's do (IMDSv2), and asks for credentials.
func askInstance(kind string) string {
	for _, args := range [][]string{{"link", "set", "lo", "up"}, {"address", "add", metadataHost + "/32", "dev", "lo"}} {
		if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
			return fmt.Sprintf("ip %s: %s", args, out)
		}
	}
	metadata, err := net.Listen("tcp", metadataHost+":80")
	other, otherErr := net.Listen("tcp", "127.0.0.1:0")
	if err := errors.Join(err, otherErr); err != nil {
		return err.Error()
	}
	var others seen
	go func() {
		_ = http.Serve(other, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { others.note(r) }))
	}()
	go func() {
		_ = http.Serve(metadata, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if kind == "redirects" {
				http.Redirect(w, r, "http://"+other.Addr().String(), http.StatusFound)
				return
			}
			serveMetadata(w, r)
		}))
	}()
	keys, err := credentialsOf(control.Access{Instance: true}, nil)
	if err != nil {
		return err.Error()
	}
	value, err := keys.GetWithContext(nil)
	got := fmt.Sprint(value.AccessKeyID, value.SecretAccessKey, value.SessionToken, " ", err)
	if len(others.all) > 0 {
		got += fmt.Sprint(" elsewhere: ", others.all)
	}
	return got
}

func serveMetadata(w http.ResponseWriter, r *http.Request) {
	const path = "/latest/meta-data/iam/security-credentials"
	switch {
	case r.Method == http.MethodPut && r.URL.Path == "/latest/api/token" && r.Header.Get("X-aws-ec2-metadata-token-ttl-seconds") != "":
		_, _ = fmt.Fprint(w, "a session")
	case r.Header.Get("X-aws-ec2-metadata-token") != "a session":
		http.Error(w, "no session", http.StatusUnauthorized)
	case r.URL.Path == path+"/":
		_, _ = fmt.Fprint(w, "reader")
	case r.URL.Path == path+"/reader":
		_ = json.NewEncoder(w).Encode(map[string]string{
			"Code": "Success", "AccessKeyId": "key", "SecretAccessKey": "secret", "Token": "session", "Expiration": "2099-01-01T00:00:00Z",
		})
	default:
		http.NotFound(w, r)
	}
}
